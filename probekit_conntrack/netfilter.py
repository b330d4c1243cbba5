"""Netfilter's own connection table (nf_conntrack), of one network namespace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from probekit import host
from probekit.host import Machine, inside

_SETTINGS = Path("/proc/sys/net/netfilter")
_COUNTERS = Path("/proc/thread-self/net/stat/nf_conntrack")
_ENTRIES = Path("/proc/thread-self/net/nf_conntrack")
_WANTED = ("insert_failed", "drop", "early_drop", "invalid", "search_restart")
_MOST_LISTED = 100_000  # going through more takes longer than it is worth
_TCP_STATE = re.compile(rb"tcp +6 (?:\d+ )?([A-Z_0-9]+) ")


@frozen
class Netfilter:
    """The table as it is now.

    Attributes:
        entries: Connections in it, of all protocols.
        most: How many it can have.
        states: TCP entries by their state; empty where the kernel does not list them, or there are too many.
        counters: Since the namespace was made, of all CPUs.
    """

    entries: int
    most: int
    states: Mapping[str, int] = field(factory=dict)
    counters: Mapping[str, int] = field(factory=dict)


def read(machine: Machine, namespace: Path) -> Netfilter | None:
    """The table of a namespace; None where the kernel has none, or does not let us see it."""
    said = machine.ask(look, namespace)
    return None if said is None else Netfilter(**said)


def look(namespace: Path) -> dict[str, Any] | None:
    """What /proc says of the table; None where it says nothing."""
    try:
        return inside(namespace, _read)
    except (OSError, ValueError):
        return None


def _read() -> dict[str, Any]:
    entries = int(host.read(_SETTINGS / "nf_conntrack_count"))
    most = int(host.read(_SETTINGS / "nf_conntrack_max"))
    states = _states() if entries <= _MOST_LISTED else {}
    return {"entries": entries, "most": most, "states": states, "counters": _counters()}


def _states() -> dict[str, int]:
    """From `ipv4 2 tcp 6 431999 ESTABLISHED src=...`, a line for each entry."""
    try:
        with _ENTRIES.open("rb") as lines:  # one by one: there are many
            found = (_TCP_STATE.search(line) for line in lines)
            return dict(Counter(host.text(match[1]) for match in found if match))
    except OSError:  # CONFIG_NF_CONNTRACK_PROCFS is not set, or nobody but root may read it
        return {}


def _counters() -> dict[str, int]:
    """A line of hexadecimal numbers for each CPU, below their names."""
    try:
        names, *lines = host.read(_COUNTERS).splitlines()
    except (OSError, ValueError):
        return {}
    sums = dict.fromkeys(names.split(), 0)
    for line in lines:
        for name, number in zip(sums, line.split(), strict=True):
            sums[name] += int(number, 16)
    return {name: sums[name] for name in _WANTED if name in sums}
