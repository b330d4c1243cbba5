from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probekit.decode.symbols import Symbols
from probekit.host import Machine
from probekit_drops.categories import Category
from probekit_drops.netfilter import HookEntry, key
from probekit_drops.rows import Namer
from probekit_drops.values import NO_HOOK, NO_REASON

_IPV4, _INPUT, _NETNS = 2, 1, 7
_CHAIN, _OTHER = 0xFFFF888000001070, 0xFFFF888000002070
_NFT = HookEntry("nft_do_chain_inet", _CHAIN, "t", "first", "")
_NFT_TOO = HookEntry("nft_do_chain_ipv4", _OTHER, "filter", "INPUT", "")
_LEGACY = HookEntry("ipt_do_table", 0xFFFF888000003000, "", "", "filter")
_CONNTRACK = HookEntry("nf_confirm", 0, "", "", "")


@pytest.fixture
def namer(tmp_path: Path) -> Namer:
    names = (
        "nft_do_chain",
        "nf_hook_slow",
        "tcp_v4_rcv",
        "nf_confirm",
        "nft_do_chain_inet",
        "nf_nat_ipv4_in",
        "nf_queue",
        "ipt_do_table",
    )
    lines = [f"{0xFFFFFFFF81000000 + 0x1000 * at:x} T {name}\n" for at, name in enumerate(names)]
    (tmp_path / "kallsyms").write_text("".join(lines))
    found = Namer(Machine(), Symbols(tmp_path / "kallsyms"))
    found.__dict__["reasons"] = {2: "SKB_DROP_REASON_NOT_SPECIFIED", 12: "SKB_DROP_REASON_NETFILTER_DROP"}
    return found


def _row(
    location: int = 0xFFFFFFFF810003E8, reason: int = 12, chain: int = 0, hook: int = _INPUT, **more: int
) -> dict[str, Any]:
    return {
        "location": location, "reason": reason, "state": 0, "netns": _NETNS, "family": _IPV4, "hook": hook,
        "chain": chain, "flags": 0, "ran": 0, "ran_with": 0, "ifindex": 3, "old": 0, "headless": 0, **more,
    }  # fmt: skip


def _at(*registered: HookEntry) -> dict[Any, list[HookEntry]]:
    return {key(_NETNS, _IPV4, _INPUT, 3): list(registered)}


@pytest.mark.parametrize(
    ("chain", "registered", "named"),
    [
        (_CHAIN, [_NFT, _NFT_TOO], "inet t first"),
        (_OTHER, [_NFT, _NFT_TOO], "ip filter INPUT"),
        (0, [_NFT, _NFT_TOO], "inet t first | ip filter INPUT"),
        (0, [_NFT, _LEGACY, _CONNTRACK], "inet t first"),
        (0, [], ""),
    ],
)
def test_the_chain_on_the_stack_is_named_else_those_that_it_may_be(
    namer: Namer, chain: int, registered: list[HookEntry], named: str
) -> None:
    place = namer.place(_row(chain=chain), _at(*registered))
    assert (place.hook, place.chain, place.location) == ("input", named, "nft_do_chain+0x3e8")


def test_what_the_loop_over_the_hooks_drops_where_nftables_drops_itself_is_iptables(namer: Namer) -> None:
    place = namer.place(_row(location=0xFFFFFFFF8100107D), _at(_NFT, _LEGACY))
    assert place.chain == "iptables filter INPUT"


def test_a_hook_of_something_that_is_no_firewall_is_not_shown(namer: Namer) -> None:
    place = namer.place(_row(location=0xFFFFFFFF81002010, reason=NO_REASON), _at(_NFT))
    assert (place.reason, place.category, place.hook, place.chain) == ("", Category.NO_SOCKET, "", "")


def test_a_reason_that_no_types_have_keeps_its_number(namer: Namer) -> None:
    assert namer.reason(99) == "reason 99"
    assert namer.place(_row(reason=99, hook=NO_HOOK), {}).category is Category.OTHER


_LOOP, _QUEUE = 0xFFFFFFFF8100107D, 0xFFFFFFFF81006021
_CONFIRM, _CHAINS, _NAT, _TABLES = (0xFFFFFFFF81000000 + 0x1000 * at for at in (3, 4, 5, 7))
_OF_NAT = HookEntry("nf_nat_ipv4_in", 0xFFFF888000009000)


def test_what_connection_tracking_drops_is_no_chains(namer: Namer) -> None:
    place = namer.place(_row(location=_LOOP, ran=_CONFIRM), _at(_LEGACY, _CONNTRACK))
    assert (place.category, place.hook, place.chain) == (Category.FIREWALL, "input", "")
    assert "conntrack -S" in place.next
    assert "nf_conntrack_max" in place.next
    assert "no rule" in place.next


def test_no_chain_is_named_where_it_may_have_been_connection_tracking(namer: Namer) -> None:
    """Nor where a chain that let the packet pass is what the stack still has."""
    place = namer.place(_row(location=_LOOP, chain=_LEGACY.chain), _at(_LEGACY, _CONNTRACK))
    assert (place.hook, place.chain) == ("input", "")
    assert "conntrack -S" in place.next
    assert "nft list ruleset" in place.next


def test_a_function_without_rules_that_never_drops_takes_no_blame_off(namer: Namer) -> None:
    place = namer.place(_row(location=_LOOP), _at(HookEntry("ipv4_conntrack_defrag", 0), _LEGACY))
    assert place.chain == "iptables filter INPUT"


def test_a_security_module_at_the_hook_is_one_that_it_may_be(namer: Namer) -> None:
    module = HookEntry("apparmor_ip_postroute", 0)
    assert namer.place(_row(location=_LOOP), _at(module, _LEGACY)).chain == "apparmor | iptables filter INPUT"


def test_of_two_tables_of_iptables_the_one_that_ran_is_named(namer: Namer) -> None:
    both = _at(HookEntry("ipt_do_table", 1, "", "", "mangle"), _LEGACY, _CONNTRACK)
    assert namer.place(_row(location=_LOOP, ran=_TABLES, ran_with=_LEGACY.chain), both).chain == "iptables filter INPUT"
    assert namer.place(_row(location=_LOOP, ran=_TABLES, ran_with=1), both).chain == "iptables mangle INPUT"
    both[key(_NETNS, _IPV4, _INPUT, 3)].pop()
    assert namer.place(_row(location=_LOOP), both).chain == "iptables mangle INPUT | iptables filter INPUT"


def test_a_chain_that_nat_runs_is_not_a_chain_of_the_hook(namer: Namer) -> None:
    assert namer.place(_row(ran=_NAT, ran_with=_OF_NAT.chain, chain=_CHAIN), _at(_NFT, _OF_NAT)).chain == ""
    assert namer.place(_row(), _at(_NFT, _OF_NAT)).chain == ""
    assert namer.place(_row(ran=_CHAINS, ran_with=_CHAIN), _at(_NFT, _OF_NAT)).chain == "inet t first"


def test_where_function_and_stack_say_different_chains_both_are_named(namer: Namer) -> None:
    place = namer.place(_row(ran=_CHAINS, ran_with=_CHAIN, chain=_OTHER), _at(_NFT, _NFT_TOO))
    assert place.chain == "inet t first | ip filter INPUT"


def test_a_queue_that_nobody_reads_is_the_chain_that_queues(namer: Namer) -> None:
    place = namer.place(_row(location=_QUEUE, reason=2), _at(_LEGACY, _CONNTRACK))
    assert (place.category, place.hook, place.chain) == (Category.FIREWALL, "input", "iptables filter INPUT")
    assert "NFQUEUE" in place.next


@pytest.mark.parametrize(
    ("family", "hook", "said"),
    [(5, 0, "ingress"), (5, 1, "egress"), (3, 0, "input"), (3, 1, "output"), (7, 2, "forward"), (7, 0, "prerouting")],
)
def test_hooks_have_their_familys_names_and_a_devices_chains_are_its_own(
    namer: Namer, family: int, hook: int, said: str
) -> None:
    registered = {key(_NETNS, family, hook, 3): [_NFT], key(_NETNS, family, hook, 4): [_NFT]}
    assert len(registered) == (2 if family == 5 else 1)
    place = namer.place(_row(hook=hook, family=family), {key(_NETNS, family, hook, 3): [_NFT]})
    assert (place.hook, place.chain) == (said, "inet t first")


def test_without_the_right_to_see_functions_categories_hooks_and_reasons_are_there(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text("0000000000000000 T nft_do_chain\n")
    hidden = Namer(Machine(), Symbols(tmp_path / "kallsyms"))
    hidden.__dict__["reasons"] = {12: "SKB_DROP_REASON_NETFILTER_DROP"}
    place = hidden.place(_row(chain=_CHAIN), _at(HookEntry("(hidden)", _CHAIN, "t", "first")))
    assert (place.reason, place.category, place.location) == ("NETFILTER_DROP", Category.FIREWALL, "(hidden)")
    assert (place.hook, place.chain) == ("input", "")
