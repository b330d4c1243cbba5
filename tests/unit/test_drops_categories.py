from __future__ import annotations

from pathlib import Path

import pytest

from probekit.machine.btf import Types
from probekit_drops.categories import NEXT, Category, Packet, categorize, short

_VMLINUX = Path("/sys/kernel/btf/vmlinux")


@pytest.mark.parametrize(
    ("reason", "function", "state", "category"),
    [
        ("NO_SOCKET", "tcp_v4_rcv", 0, Category.NO_SOCKET),
        ("NETFILTER_DROP", "nft_do_chain", 0, Category.FIREWALL),
        ("IP_INHDR", "ip_rcv_core", 0, Category.MALFORMED),
        ("IP_INHDR", "ip_forward", 0, Category.ROUTING),
        ("NOT_SPECIFIED", "nf_hook_slow", 0, Category.FIREWALL),
        ("", "__udp_enqueue_schedule_skb", 0, Category.CONGESTION),
        ("NOT_SPECIFIED", "tcp_v4_rcv", 6, Category.NORMAL),
        ("NO_SOCKET", "tcp_v4_rcv", 6, Category.NO_SOCKET),
        ("TCP_RESET", "tcp_reset", 0, Category.NORMAL),
        ("QUEUE_PURGE", "sk_stream_kill_queues", 0, Category.NORMAL),
        ("NOT_SPECIFIED", "bpf_prog_test_run_skb", 0, Category.NORMAL),
        ("", "bpf_prog_test_run_skb", 0, Category.NORMAL),
        ("A_REASON_OF_TOMORROW", "tcp_v4_rcv", 0, Category.OTHER),
        ("NOT_SPECIFIED", "some_driver_xmit", 0, Category.OTHER),
    ],
)
def test_reason_function_and_state_decide(reason: str, function: str, state: int, category: Category) -> None:
    assert categorize(reason, function, Packet(state)) is category


def test_the_end_of_a_connection_is_told_by_its_flags_where_its_socket_is_not_known() -> None:
    fin, syn = 0x11, 0x02
    assert categorize("NOT_SPECIFIED", "tcp_v4_rcv", Packet(0, fin)) is Category.NORMAL
    assert categorize("", "tcp_v6_rcv", Packet(0, fin)) is Category.NORMAL
    assert categorize("NOT_SPECIFIED", "tcp_v4_rcv", Packet(1, fin)) is Category.TCP_STATE
    assert categorize("", "tcp_v4_rcv", Packet(0, fin | syn)) is Category.NO_SOCKET
    assert categorize("NO_SOCKET", "tcp_v4_rcv", Packet(0, fin)) is Category.NO_SOCKET


@pytest.mark.parametrize("function", ["__udp4_lib_rcv", "udp_rcv", "__udp6_lib_rcv", "udpv6_rcv"])
def test_what_udp_refuses_without_a_reason_has_a_socket_or_no_say_in_it(function: str) -> None:
    assert categorize("NO_SOCKET", function, Packet()) is Category.NO_SOCKET
    assert categorize("NOT_SPECIFIED", function, Packet()) is Category.POLICY
    assert categorize("NOT_SPECIFIED", function, Packet(headless=True)) is Category.MALFORMED
    assert categorize("", function, Packet()) is Category.NO_SOCKET
    assert categorize("", function, Packet(headless=True)) is Category.MALFORMED


def test_what_ipsec_refuses_is_policy_wherever_it_does() -> None:
    for function in ("xfrm_input", "xfrm_output_resume", "__xfrm_policy_check"):
        assert categorize("NOT_SPECIFIED", function, Packet()) is Category.POLICY


@pytest.mark.parametrize("reason", ["TCP_OLD_DATA", "TCP_OFOMERGE", "TCP_OFO_DROP"])
def test_data_that_had_arrived_before_is_no_loss(reason: str) -> None:
    assert categorize(reason, "tcp_data_queue", Packet(1, 0x10)) is Category.NORMAL
    assert "had arrived before" in NEXT[Category.NORMAL]


def test_a_keepalive_loses_nothing_and_what_else_is_out_of_sequence_is_a_drop() -> None:
    for reason in ("TCP_OLD_SEQUENCE", "TCP_INVALID_SEQUENCE"):
        assert categorize(reason, "tcp_validate_incoming", Packet(1, 0x10, old=True)) is Category.NORMAL
        assert categorize(reason, "tcp_validate_incoming", Packet(1, 0x10)) is Category.TCP_STATE


def test_what_no_program_reads_is_the_firewalls() -> None:
    for function in ("nf_queue", "__nf_queue", "nf_reinject"):
        assert categorize("NOT_SPECIFIED", function, Packet()) is Category.FIREWALL


def test_what_a_bridge_gives_up_at_a_hook_is_the_firewalls_and_elsewhere_is_not() -> None:
    assert categorize("NOT_SPECIFIED", "br_handle_frame", Packet(bridged=True)) is Category.FIREWALL
    assert categorize("NOT_SPECIFIED", "br_handle_frame", Packet()) is Category.OTHER
    assert categorize("MAC_INVALID_SOURCE", "br_handle_frame", Packet(bridged=True)) is Category.MALFORMED


def test_every_category_says_what_to_look_at_next() -> None:
    assert set(NEXT) == set(Category)


def test_no_reason_of_this_kernel_is_unknown() -> None:
    reasons = Types(_VMLINUX.read_bytes()).enumerators("skb_drop_reason")
    if not reasons:
        pytest.skip("not on this kernel: it has no drop reasons")
    names = {short(name) for name in reasons.values()} - {"NOT_SPECIFIED", "MAX", "SUBSYS_MASK"}
    assert "NO_SOCKET" in names
    assert sorted(name for name in names if categorize(name, "", Packet()) is Category.OTHER) == []
