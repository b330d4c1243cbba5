"""The drop probe's tables, for people and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from probekit import Array, Column, Table
from probekit.decode import address_text, endpoint_text, text

from .categories import Category
from .netfilter import Registered
from .rows import Namer, Place

_IPV4, _IPV6 = 0x0800, 0x86DD
_ETHERTYPES = {0x0806: "arp", 0x8100: "vlan", 0x88CC: "lldp", 0x0: ""}
_PROTOCOLS = {
    0: "", 1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 58: "icmpv6",
    132: "sctp", 136: "udplite",
}  # fmt: skip
_ICMP, _DATAGRAMS, _WITH_PORTS = (1, 58), (17, 136), (6, 17, 136)
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_STATES = (
    "", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "close", "close-wait",
    "last-ack", "listen", "closing", "new-syn-recv", "bound-inactive",
)  # fmt: skip
_COUNTED = ("drops", "packets", "bytes")
_SAME_PLACE = (
    "location", "reason", "netns", "ifindex", "chain", "ran", "ran_with", "hook", "family", "state", "flags", "old",
    "headless",
)  # fmt: skip
NOT_GIVEN = "(not given)"
OTHERS = "(other flows)"


def places(values: Mapping[str, Array], namer: Namer, registered: Registered) -> list[Place]:
    """Where and why, for each row; what rows have in common is looked up once."""
    count = len(values["location"])
    values = {**values, "headless": _headless(values)}
    packed = np.zeros(count, [(name, values[name].dtype) for name in _SAME_PLACE])
    for name in _SAME_PLACE:
        packed[name] = values[name]
    _, first, inverse = np.unique(packed.view(f"V{packed.itemsize}"), return_index=True, return_inverse=True)
    distinct = [namer.place(packed[at], registered) for at in first.tolist()]
    return [distinct[at] for at in inverse.ravel().tolist()]


def _headless(values: Mapping[str, Array]) -> Array:
    """Datagrams too short for UDP's header; of what was counted by place alone it is not known."""
    if "protocol" not in values:
        return np.zeros(len(values["location"]), bool)
    ports = values["source_port"] | values["destination_port"]
    headless: Array = np.isin(values["protocol"], _DATAGRAMS) & (ports == 0)
    return headless


def reasons(found: list[Place], values: Mapping[str, Array], name: str) -> Table:
    """The main table: drops by reason, function, hook and chain.

    Args:
        found: Where and why, for each row.
        values: `drops`, `packets` and `bytes` of each row.
        name: The table's.
    """
    order: dict[Place, int] = {}
    groups = np.array([order.setdefault(place, len(order)) for place in found], np.intp)
    sums = {column: np.zeros(len(order), np.uint64) for column in _COUNTED}
    for column in _COUNTED:
        np.add.at(sums[column], groups, values[column].astype(np.uint64))
    flows = np.bincount(groups, minlength=len(order))
    by_drops = np.argsort(-sums["drops"].astype(np.int64), kind="stable")
    rows = [list(order)[at] for at in by_drops.tolist()]
    return Table(
        name=name,
        key=unique([" ".join(filter(None, (_reason(p), p.location, p.hook, p.chain))) for p in rows]),
        columns=(
            Column("category", _texts(p.category.value for p in rows), label=True, help="a kind that one can act on"),
            Column("reason", _texts(_reason(p) for p in rows), label=True, help="the kernel's own, by its BTF"),
            Column("function", _texts(p.location for p in rows), label=True, help="that dropped, and where in it"),
            Column("hook", _texts(p.hook for p in rows), label=True, help="netfilter's"),
            Column("chain", _texts(p.chain for p in rows), label=True, help="of nftables, or table of iptables"),
            Column("drops", sums["drops"][by_drops], total=True, help="buffers that were freed"),
            Column("packets", sums["packets"][by_drops], total=True, help="that they stood for (GSO, GRO)"),
            Column(
                "bytes", sums["bytes"][by_drops], total=True, help="of the buffers, from where they had been parsed"
            ),
            Column("flows", flows[by_drops], help="rows in the table of flows"),
            Column("next", _texts(p.next for p in rows), label=True, help="what to look at"),
        ),
        headline=("category", "reason", "function", "hook", "chain", "drops", "next"),
    )


@frozen
class Known:
    """The names of what rows have numbers of.

    Attributes:
        namespaces: Of network namespaces, by inode number.
        devices: Of devices, by their namespace and number.
        owners: Process id and command name, by socket inode number.
    """

    namespaces: Mapping[int, str]
    devices: Mapping[tuple[int, int], str]
    owners: Mapping[int, tuple[int, str]]


def flows(found: list[Place], values: Mapping[str, Array], known: Known) -> Table:
    """A row for each flow, most drops first.

    Args:
        found: Where and why, for each row.
        values: Fields of `struct drop_flow` and `struct drop_count`.
        known: Names.
    """
    order = np.argsort(-values["drops"].astype(np.int64), kind="stable")
    found = [found[at] for at in order.tolist()]
    values = {name: values[name][order] for name in values}
    who = _who(found, values, known)
    held = [known.owners.get(inode, (0, "")) for inode in values["socket"].tolist()]
    where = zip(*(column.values.tolist() for column in who if column.name in _KEY), strict=True)
    return Table(
        name="flows",
        key=unique([" ".join(filter(None, parts)) for parts in where]),
        columns=(
            *who,
            Column("state", _state_text(values["state"]), label=True, help="of the TCP socket, if it was known"),
            Column("flags", _flag_text(values), label=True, help="TCP flags, all that were seen; ICMP type and code"),
            Column("uid", values["uid"], label=True, help="user of the socket's owner"),
            Column("pid", np.array([pid for pid, _ in held], np.int64), label=True, help="process with the socket"),
            Column("process", _texts(name for _, name in held), label=True, help="its command name"),
            *(Column(name, values[name], total=True) for name in _COUNTED),
        ),
        headline=("reason", "netns", "device", "protocol", "source", "destination", "process", "drops"),
    )


_KEY = ("reason", "location", "netns", "device", "protocol", "source", "destination")


def events(found: list[Place], values: Mapping[str, Array], known: Known, stacks: Array | None) -> Table:
    """Streamed drops, a row each."""
    held = [known.owners.get(inode, (0, "")) for inode in values["socket"].tolist()]
    more = () if stacks is None else (Column("stack", stacks, label=True, help="callers, innermost first"),)
    return Table(
        name="events",
        key=np.arange(len(found)),
        columns=(
            Column("time_ns", values["time"], label=True, help="CLOCK_MONOTONIC"),
            *_who(found, values, known),
            Column("state", _state_text(values["state"]), label=True),
            Column("flags", _flag_text(values), label=True),
            Column("length", values["length"]),
            Column("pid", np.array([pid for pid, _ in held], np.int64), label=True),
            Column("process", _texts(name for _, name in held), label=True),
            *more,
        ),
    )


def stack_texts(stacks: Array, locations: Array, namer: Namer) -> Array:
    """Each kernel stack from the function that dropped on, ` < ` between a function and its caller.

    Args:
        stacks: Shape (n, depth); 0 where a stack has ended. They begin in the tracepoint's own functions.
        locations: Shape (n,): where the drops were.
        namer: Gives the functions' names.
    """
    lines = []
    for stack, location in zip(stacks.tolist(), locations.tolist(), strict=True):
        frames = stack[stack.index(location) :] if location in stack else stack
        lines.append(" < ".join(namer.text(frame) for frame in frames if frame))
    return _texts(lines)


def devices(values: Mapping[str, Array]) -> dict[tuple[int, int], str]:
    """The devices that rows name, by namespace and number."""
    named = zip(values["netns"].tolist(), values["ifindex"].tolist(), text(values["device"]).tolist(), strict=True)
    return {(netns, number): name for netns, number, name in named if name}


def _device_names(values: Mapping[str, Array], known: Mapping[tuple[int, int], str]) -> Array:
    """Each row's device; TCP and UDP forget it, so that other rows, or its number, have to say it."""
    known = {**known, **devices(values)}
    found = text(values["device"]).tolist()
    places_of = zip(values["netns"].tolist(), values["ifindex"].tolist(), strict=True)
    return _texts(
        name or (known.get(place, f"#{place[1]}") if place[1] else "")
        for place, name in zip(places_of, found, strict=True)
    )


def unique(keys: list[str]) -> Array:
    """Keys with a number where one stands for several rows."""
    seen: dict[str, int] = {}
    for place, key in enumerate(keys):
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            keys[place] = f"{key} #{seen[key]}"
    return _texts(keys)


def _who(found: list[Place], values: Mapping[str, Array], known: Known) -> tuple[Column, ...]:
    source, destination = _endpoints(values)
    netns = [known.namespaces.get(number, str(number) if number else "") for number in values["netns"].tolist()]
    return (
        Column("category", _texts(p.category.value for p in found), label=True, help="a kind that one can act on"),
        Column("reason", _texts(_reason(p) for p in found), label=True, help="the kernel's own"),
        Column(
            "location", _texts(p.location for p in found), label=True, help="function that dropped, and where in it"
        ),
        Column("hook", _texts(p.hook for p in found), label=True, help="netfilter's"),
        Column("chain", _texts(p.chain for p in found), label=True, help="of nftables, or table of iptables"),
        Column("netns", _texts(netns), label=True, help="network namespace: name, or inode number"),
        Column("device", _device_names(values, known.devices), label=True, help="network device"),
        Column("protocol", _protocols(values), label=True, help="behind IP, else the Ethernet type"),
        Column("source", source, label=True, help="address and port"),
        Column("destination", destination, label=True, help="address and port"),
    )


def _reason(place: Place) -> str:
    return place.reason or NOT_GIVEN


def _texts(values: Any) -> Array:
    return np.array(list(values), dtype=np.str_)


def _endpoints(values: Mapping[str, Array]) -> tuple[Array, Array]:
    with_ports = np.isin(values["protocol"], _WITH_PORTS) & (values["destination_port"] > 0)
    is_ip = np.isin(values["ethertype"], (_IPV4, _IPV6))
    ends = []
    for name in ("source", "destination"):
        bare, whole = address_text(values[name]), endpoint_text(values[name], values[f"{name}_port"])
        ends.append(np.where(with_ports, whole, np.where(is_ip, bare, "")))
    return ends[0], ends[1]


def _protocols(values: Mapping[str, Array]) -> Array:
    pairs = zip(values["ethertype"].tolist(), values["protocol"].tolist(), strict=True)
    return _texts(
        _PROTOCOLS.get(protocol, str(protocol)) if ethertype in (_IPV4, _IPV6)
        else _ETHERTYPES.get(ethertype, f"{ethertype:#06x}")
        for ethertype, protocol in pairs
    )  # fmt: skip


def _flag_text(values: Mapping[str, Array]) -> Array:
    columns = (values[name].tolist() for name in ("protocol", "flags", "destination_port"))
    return _texts(
        f"type {port >> 8} code {port & 0xFF}" if protocol in _ICMP
        else ",".join(flag for bit, flag in enumerate(_FLAGS) if flags >> bit & 1)
        for protocol, flags, port in zip(*columns, strict=True)
    )  # fmt: skip


def _state_text(states: Array) -> Array:
    return _texts(_STATES[state] if state < len(_STATES) else str(state) for state in states.tolist())


def is_normal(found: list[Place]) -> Array:
    """Which rows are frees that lose nothing."""
    return np.array([place.category is Category.NORMAL for place in found], bool)
