from __future__ import annotations

from pathlib import Path

import pytest

from probekit.btf import Types
from probekit_drops.categories import NEXT, Category, categorize, short

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
        ("A_REASON_OF_TOMORROW", "tcp_v4_rcv", 0, Category.OTHER),
        ("NOT_SPECIFIED", "some_driver_xmit", 0, Category.OTHER),
    ],
)
def test_reason_function_and_state_decide(reason: str, function: str, state: int, category: Category) -> None:
    assert categorize(reason, function, state) is category


def test_the_end_of_a_connection_is_told_by_its_flags_where_its_socket_is_not_known() -> None:
    fin, syn = 0x11, 0x02
    assert categorize("NOT_SPECIFIED", "tcp_v4_rcv", 0, fin) is Category.NORMAL
    assert categorize("", "tcp_v6_rcv", 0, fin) is Category.NORMAL
    assert categorize("NOT_SPECIFIED", "tcp_v4_rcv", 1, fin) is Category.TCP_STATE
    assert categorize("", "tcp_v4_rcv", 0, fin | syn) is Category.NO_SOCKET
    assert categorize("NO_SOCKET", "tcp_v4_rcv", 0, fin) is Category.NO_SOCKET


def test_every_category_says_what_to_look_at_next() -> None:
    assert set(NEXT) == set(Category)


def test_no_reason_of_this_kernel_is_unknown() -> None:
    reasons = Types(_VMLINUX.read_bytes()).enumerators("skb_drop_reason")
    if not reasons:
        pytest.skip("not on this kernel: it has no drop reasons")
    names = {short(name) for name in reasons.values()} - {"NOT_SPECIFIED", "MAX", "SUBSYS_MASK"}
    assert "NO_SOCKET" in names
    assert sorted(name for name in names if categorize(name, "", 0) is Category.OTHER) == []
