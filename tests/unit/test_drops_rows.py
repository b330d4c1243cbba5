from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probekit.decode.symbols import Symbols
from probekit_drops.categories import Category
from probekit_drops.rows import HookEntry, Namer
from probekit_drops.values import NO_HOOK, NO_REASON

_IPV4, _INPUT, _NETNS = 2, 1, 7
_CHAIN, _OTHER = 0xFFFF888000001070, 0xFFFF888000002070
_NFT = HookEntry("nft_do_chain_inet", _CHAIN, "t", "first", "")
_NFT_TOO = HookEntry("nft_do_chain_ipv4", _OTHER, "filter", "INPUT", "")
_LEGACY = HookEntry("ipt_do_table", 0xFFFF888000003000, "", "", "filter")
_CONNTRACK = HookEntry("nf_confirm", 0, "", "", "")


@pytest.fixture
def namer(tmp_path: Path) -> Namer:
    lines = "ffffffff81000000 T nft_do_chain\nffffffff81001000 T nf_hook_slow\nffffffff81002000 T tcp_v4_rcv\n"
    (tmp_path / "kallsyms").write_text(lines)
    found = Namer(Symbols(tmp_path / "kallsyms"))
    found.__dict__["reasons"] = {2: "SKB_DROP_REASON_NOT_SPECIFIED", 12: "SKB_DROP_REASON_NETFILTER_DROP"}
    return found


def _row(location: int = 0xFFFFFFFF810003E8, reason: int = 12, chain: int = 0, hook: int = _INPUT) -> dict[str, Any]:
    return {
        "location": location, "reason": reason, "state": 0, "netns": _NETNS, "family": _IPV4, "hook": hook,
        "chain": chain, "flags": 0,
    }  # fmt: skip


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
    place = namer.place(_row(chain=chain), {(_NETNS, _IPV4, _INPUT): registered})
    assert (place.hook, place.chain, place.location) == ("input", named, "nft_do_chain+0x3e8")


def test_what_the_loop_over_the_hooks_drops_where_nftables_drops_itself_is_iptables(namer: Namer) -> None:
    place = namer.place(_row(location=0xFFFFFFFF8100107D), {(_NETNS, _IPV4, _INPUT): [_NFT, _LEGACY]})
    assert place.chain == "iptables filter INPUT"


def test_a_hook_of_something_that_is_no_firewall_is_not_shown(namer: Namer) -> None:
    place = namer.place(_row(location=0xFFFFFFFF81002010, reason=NO_REASON), {(_NETNS, _IPV4, _INPUT): [_NFT]})
    assert (place.reason, place.category, place.hook, place.chain) == ("", Category.NO_SOCKET, "", "")


def test_a_reason_that_no_types_have_keeps_its_number(namer: Namer) -> None:
    assert namer.reason(99) == "reason 99"
    assert namer.place(_row(reason=99, hook=NO_HOOK), {}).category is Category.OTHER
