"""Drops as rows: flows with their reason, place and hook in words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen

from probekit import host
from probekit.decode import HIDDEN, Symbols, function_text
from probekit.host import VMLINUX_BTF, Machine, Types

from . import netfilter
from .categories import NEXT, Category, Packet, categorize, short
from .values import NO_HOOK, NO_REASON

_SUBSYSTEM = 1 << 16  # reasons from here on are a subsystem's


def reasons_of(btf: Path) -> list[list[Any]]:
    """Number and name of each reason of a kernel."""
    return [list(reason) for reason in _reasons(Types(btf.read_bytes())).items()]


def reasons_of_modules(btf: Path) -> list[list[Any]]:
    """The same of a kernel's modules."""
    base = btf.read_bytes()
    found: dict[int, str] = {}
    for path in sorted(host.entries(btf.parent)):
        if path != btf:
            with contextlib.suppress(OSError):  # the module is gone
                found |= _reasons(Types(path.read_bytes(), base))
    return [list(reason) for reason in found.items()]


def _reasons(types: Types) -> dict[int, str]:
    found = types.enumerators("skb_drop_reason")
    for name in types.enums():
        if name.endswith("_drop_reason"):
            found |= {number: text for number, text in types.enumerators(name).items() if number >= _SUBSYSTEM}
    return found


@frozen
class Place:
    """Where and why.

    Attributes:
        reason: Its short name; empty where the kernel gives none.
        category: Its category.
        location: Function and offset.
        hook: Of netfilter: `input`; empty for anything else.
        chain: Of netfilter: `ip filter INPUT`, or several with ` | ` where it is not known which; empty if none.
        next: What to look at.
    """

    reason: str
    category: Category
    location: str
    hook: str
    chain: str
    next: str


class Namer:
    """Gives names to the kernel's numbers.

    Args:
        machine: Is asked for them.
        symbols: The kernel's functions.
        btf: Its types.
        nft_frees: Whether what nftables drops is always freed by itself.
    """

    def __init__(
        self, machine: Machine, symbols: Symbols | None = None, btf: Path = VMLINUX_BTF, nft_frees: bool = True
    ) -> None:
        self.symbols = symbols or Symbols()
        self.hidden = False
        self._machine = machine
        self._functions: dict[int, tuple[str, int]] = {}
        self._btf = btf
        self._nft_frees = nft_frees

    def read_ahead(self) -> threading.Thread:
        """Begins to read what all names come from, which takes a while: a thread that ends when all is there."""

        def read() -> None:
            with contextlib.suppress(OSError, ValueError):  # it is said when a name is asked for
                self._machine.ask(self._read)
                _ = self.reasons

        thread = threading.Thread(target=read, name="names", daemon=True)
        thread.start()
        return thread

    @cached_property
    def reasons(self) -> Mapping[int, str]:
        """The kernel's reasons, those of subsystems in it included; empty on kernels without."""
        return dict(self._machine.ask(reasons_of, self._btf))

    @cached_property
    def _of_modules(self) -> Mapping[int, str]:
        """Subsystems that are modules bring reasons of their own: mac80211_drop_reason, ovs_drop_reason."""
        return dict(self._machine.ask(reasons_of_modules, self._btf))

    def function(self, address: int) -> tuple[str, int]:
        """The function that a return address is in, and how far."""
        if address not in self._functions:
            name, offset = self._machine.ask(self._function, address)
            self._functions[address] = name, offset
            self.hidden = self.hidden or name == HIDDEN
        return self._functions[address]

    def text(self, address: int) -> str:
        """`ip_forward+0x1c4`."""
        return function_text(*self.function(address))

    def _read(self) -> None:
        self.symbols.read()

    def _function(self, address: int) -> list[Any]:
        return list(self.symbols.function(address))

    def reason(self, number: int) -> str:
        """A reason's short name; `reason 70001` for one that no BTF has."""
        if number == NO_REASON:
            return ""
        names = self._of_modules if number >= _SUBSYSTEM and number not in self.reasons else self.reasons
        return short(names[number]) if number in names else f"reason {number}"

    def place(self, row: Any, registered: netfilter.Registered) -> Place:
        """Where and why a flow's packets were dropped.

        Args:
            row: Of `struct drop_flow`, with its TCP flags and whether it was `headless`.
            registered: Functions at hooks.
        """
        location = int(row["location"])
        function, _ = self.function(location)
        reason = self.reason(int(row["reason"]))
        hooked = int(row["hook"]) != NO_HOOK
        packet = Packet(
            state=int(row["state"]), flags=int(row["flags"]), old=bool(row["old"]),
            headless=bool(row["headless"]), bridged=hooked and int(row["family"]) == netfilter.BRIDGE,
        )  # fmt: skip
        category = categorize(reason, function, packet)
        hook, chain, after = "", "", NEXT[category]
        if hooked and category is Category.FIREWALL:
            drop = self._dropped(row, function)
            hook = netfilter.hook_name(drop.family, drop.hook)
            at = netfilter.key(int(row["netns"]), drop.family, drop.hook, int(row["ifindex"]))
            chain, after = netfilter.blame(drop, registered.get(at, []), self._nft_frees)
        return Place(reason, category, self.text(location), hook, chain, after)

    def _dropped(self, row: Any, function: str) -> netfilter.Dropped:
        ran = self.function(int(row["ran"]) + 1)[0] if row["ran"] else ""
        numbers = int(row["family"]), int(row["hook"]), int(row["chain"]), int(row["ran_with"])
        return netfilter.Dropped(*numbers[:2], function, numbers[2], ran, numbers[3])
