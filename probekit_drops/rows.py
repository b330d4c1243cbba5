"""Drops as rows: flows with their reason, place and hook in words."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen

from probekit.btf import Types
from probekit.decode.symbols import Symbols
from probekit.kernel import VMLINUX_BTF

from .categories import Category, categorize, short
from .values import NO_HOOK, NO_REASON

_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_NETDEV, _NETDEV_HOOKS = 5, ("ingress", "egress")
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_SUBSYSTEM = 1 << 16  # reasons from here on are a subsystem's
NETNS_FOLDER = Path("/run/netns")


@frozen
class Place:
    """Where and why.

    Attributes:
        reason: Its short name; empty where the kernel gives none.
        category: Its category.
        location: Function and offset.
        hook: Of netfilter: `input`; empty for anything else.
        chain: Of netfilter: `ip filter INPUT`, or several with ` | ` where it is not known which; empty if none.
    """

    reason: str
    category: Category
    location: str
    hook: str
    chain: str


class Namer:
    """Gives names to the kernel's numbers."""

    def __init__(self, symbols: Symbols | None = None, btf: Path = VMLINUX_BTF) -> None:
        self.symbols = symbols or Symbols()
        self._btf = btf
        self._places: dict[tuple[int, ...], Place] = {}

    @cached_property
    def reasons(self) -> Mapping[int, str]:
        """This kernel's reasons, its modules' included; empty on kernels without."""
        return Types(self._btf.read_bytes()).enumerators("skb_drop_reason")

    @cached_property
    def _of_subsystems(self) -> Mapping[int, str]:
        """Subsystems have an enum of their own, in the kernel or in a module: mac80211_drop_reason, ovs_drop_reason."""
        base = self._btf.read_bytes()
        found: dict[int, str] = {}
        for path in sorted(self._btf.parent.iterdir()):
            types = Types(base) if path == self._btf else Types(path.read_bytes(), base)
            for name in types.enums():
                if name.endswith("_drop_reason") and name != "skb_drop_reason":
                    found |= types.enumerators(name)
        return found

    def reason(self, number: int) -> str:
        """A reason's short name; `reason 70001` for one that no BTF has."""
        if number == NO_REASON:
            return ""
        names = self._of_subsystems if number >= _SUBSYSTEM else self.reasons
        return short(names[number]) if number in names else f"reason {number}"

    def place(self, row: Any, entries: Mapping[tuple[int, int, int], list[HookEntry]]) -> Place:
        """Where and why a flow's packets were dropped.

        Args:
            row: Of `struct drop_flow`, with its TCP flags.
            entries: Functions registered at hooks, by namespace, family and hook.
        """
        location, number, state = int(row["location"]), int(row["reason"]), int(row["state"])
        function, _ = self.symbols.function(location)
        reason = self.reason(number)
        category = categorize(reason, function, state, int(row["flags"]))
        hook = chain = ""
        if int(row["hook"]) != NO_HOOK and category is Category.FIREWALL:
            family, at = int(row["family"]), int(row["hook"])
            names = _NETDEV_HOOKS if family == _NETDEV else _HOOKS
            hook = names[at] if at < len(names) else str(at)
            registered = entries.get((int(row["netns"]), family, at), [])
            chain = _chain(int(row["chain"]), registered, family, hook, function)
        return Place(reason, category, self.symbols.text(location), hook, chain)


@frozen
class HookEntry:
    """A function at a netfilter hook.

    Attributes:
        function: Its name.
        chain: What it was registered with.
        table: The nftables table's name, if that was a chain.
        name: The chain's.
        legacy: The table's name, if it was one of iptables.
    """

    function: str
    chain: int
    table: str
    name: str
    legacy: str


def _chain(chain: int, registered: list[HookEntry], family: int, hook: str, function: str) -> str:
    """The chain or table in words: the one that was found on the stack, else what there is to choose from."""
    known = [entry for entry in registered if chain and entry.chain == chain]
    if not known:
        # where nftables drops by itself, what the hooks' loop drops was somebody else's
        by_rules = [entry for entry in registered if _described(entry, family, hook)]
        known = [e for e in by_rules if e.function.startswith("nft_do_chain") == function.startswith("nft_do_chain")]
        known = known or by_rules
    return " | ".join(dict.fromkeys(filter(None, (_described(entry, family, hook) for entry in known))))


def _described(entry: HookEntry, family: int, hook: str) -> str:
    """`ip filter INPUT`, `iptables filter INPUT`, `bpf program`; empty for what has no rules."""
    if entry.function.startswith("nft_do_chain"):
        of = "inet" if entry.function == "nft_do_chain_inet" else _FAMILIES.get(family, str(family))
        return f"{of} {entry.table} {entry.name}".strip() if entry.name else f"nft {of} {hook}"
    tool = "ip6tables" if family == socket.AF_INET6 else "iptables"
    if entry.function in ("ipt_do_table", "ip6t_do_table"):
        return f"{tool} {entry.legacy} {hook.upper()}"
    for prefix in ("iptable_", "ip6table_"):  # before 5.16 each table had a function of its own
        if entry.function.startswith(prefix):
            return f"{tool} {entry.function.removeprefix(prefix).partition('_')[0]} {hook.upper()}"
    return "bpf program" if entry.function == "nf_hook_run_bpf" else ""


def namespaces() -> dict[int, str]:
    """Names of network namespaces by inode number, as `ip netns` has them."""
    if not NETNS_FOLDER.is_dir():
        return {}
    return {path.stat().st_ino: path.name for path in NETNS_FOLDER.iterdir()}


def socket_owners(inodes: set[int]) -> dict[int, tuple[int, str]]:
    """Process id and command name of those who hold sockets, from /proc; a socket nobody holds any more is left out."""
    found: dict[int, tuple[int, str]] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for process in Path("/proc").iterdir() if wanted else ():
        if not process.name.isdecimal():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                inode = wanted.get(str(descriptor.readlink()))
                if inode is not None and inode not in found:
                    found[inode] = int(process.name), (process / "comm").read_text().strip()
        except OSError:  # it has ended
            continue
    return found
