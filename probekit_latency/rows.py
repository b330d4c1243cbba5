"""Connections as rows: the kernel's records, merged where one connection left several."""

from __future__ import annotations

from typing import Any

import numpy as np

from probekit import Array
from probekit.aggregate import chosen

from .values import UNCOUNTED, End, Side

# A connection as it is kept here: the kernel's record, its 128-bit sum of squares as a float; and whether a snapshot
# told of its end. Of the exchange under way: `since` when it is waited for, 0 where it is not; `first`, how long until
# its response began, UNSEEN where it has not; when it did (`moment`), and how long it has lasted.
ROW = np.dtype(
    [
        (
            "who",
            [("socket", "u8"), ("local", "u1", 16), ("remote", "u1", 16), ("local_port", "u2"), ("remote_port", "u2")],
        )
    ]
    + [(name, "u1") for name in ("side", "origin", "end", "told")]
    + [
        (name, "u8")
        for name in (
            "events",
            "sum",
            "min",
            "max",
            "wait",
            "unsplit",
            "unsplit_sum",
            "sent",
            "received",
            "retransmits",
            "id",
            "transferred",
            "gaps",
            "no_room",
            "since",
            "first",
            "lasts",
            "waited",
            "moment",
            "min_rtt_us",
            "sent_before",
            "received_before",
            "retransmits_before",
        )
    ]
    + [("squares", "f8"), ("pid", "u4"), ("srtt_us", "u4")]
)


def rows_of(values: Any, outlier: int, first_bytes: bool) -> Array:
    """Decoded records of the kernel as rows, those that had an exchange, or have one under way.

    Args:
        values: Columns.
        outlier: How long an exchange may take, ns.
        first_bytes: The main figures are of first bytes.
    """
    rows = np.zeros(len(values["events"]), ROW)
    for name in ROW["who"].names or ():
        rows["who"][name] = values[name]
    for name in (ROW.names or ())[1:]:
        if name != "told":
            rows[name] = values[name]
    there = (rows["events"] > 0) | (rows["since"] > 0)
    rows = rows if there.all() else chosen(rows, there)
    uncounted = rows["unsplit"] == UNCOUNTED
    _make_possible(rows, outlier, first_bytes)
    _leave_out_parts(rows, uncounted, first_bytes)
    return rows


def _leave_out_parts(rows: Array, uncounted: Array, first_bytes: bool) -> None:
    """Where nobody knows how many exchanges were split, none was: a merged row has the averages of its others."""
    rows["unsplit"][uncounted] = rows["events"][uncounted]
    rows["unsplit_sum"][uncounted] = first_sum(rows, first_bytes)[uncounted]
    rows["wait"][uncounted] = 0


def first_sum(rows: Array, first_bytes: bool) -> Array:
    """Of each row the sum of its requests up to the first byte, or of its services, ns."""
    total: Array = rows["sum"] - np.where(_has_transfers(rows, first_bytes), rows["transferred"], np.uint64(0))
    return total


def _has_transfers(rows: Array, first_bytes: bool) -> Array:
    """Whether transfers are in a row's sum."""
    has: Array = (rows["side"] == Side.CLIENT) & (not first_bytes)
    return has


def _make_possible(rows: Array, outlier: int, first_bytes: bool) -> None:
    """Lets no part be more than its whole, though some rows were copied in the middle of a change.

    The fields of a record are written one after the other: a copy may have an exchange in its sum and not in its count.
    """
    events, most = rows["events"].astype(np.float64), rows["max"].astype(np.float64)
    rows["min"] = np.minimum(rows["min"], rows["max"])
    least = rows["min"].astype(np.float64)
    rows["sum"] = np.clip(rows["sum"], rows["events"] * rows["min"], rows["events"] * rows["max"])
    total = rows["sum"].astype(np.float64)
    # values between two bounds lie farthest apart where all are at one of them (Bhatia and Davis)
    mean = np.divide(total, events, out=np.zeros(len(rows)), where=events > 0)
    rows["squares"] = np.clip(rows["squares"], total * mean, total * mean + events * (most - mean) * (mean - least))
    rows["unsplit"] = np.minimum(rows["unsplit"], rows["events"])
    rows["transferred"] = np.minimum(rows["transferred"], rows["events"] * np.uint64(outlier))
    whole = _has_transfers(rows, first_bytes)
    rows["transferred"][whole] = np.minimum(rows["transferred"], rows["sum"])[whole]
    first = first_sum(rows, first_bytes)
    rows["unsplit_sum"] = np.minimum(rows["unsplit_sum"], first)
    client = rows["side"] == Side.CLIENT  # what a server's request waits is no part of its service
    rows["wait"][client] = np.minimum(rows["wait"], first - rows["unsplit_sum"])[client]


VERDICTS = ("", "network", "peer", "wakeup", "transfer", "stall", "service", "reply", "pickup")


def averages(rows: Array, first_bytes: bool) -> dict[str, Array]:
    """Averages of each row's exchanges, ns; not a number where they are not known.

    Returns:
        `main` and its standard `deviation`; `first`, up to the first byte of a request, or a service; `wire` of a
        client; `wait`, a client's wakeup or a server's pickup; and `lasts`, of a response from its first part to its
        last.
    """
    client = rows["side"] == Side.CLIENT
    timed = client | (rows["wait"] > 0)  # without `pickup` no server's requests wait
    split = np.where(timed, rows["events"] - rows["unsplit"], 0)
    first, main = first_sum(rows, first_bytes), _ratio(rows["sum"], rows["events"])
    wait = _ratio(rows["wait"], split)
    wire = np.minimum(_ratio(first - rows["unsplit_sum"] - rows["wait"], split), rows["max"])
    return {
        "main": main,
        "deviation": np.sqrt(np.maximum(_ratio(rows["squares"], rows["events"]) - main**2, 0)),
        "first": _ratio(first, rows["events"]),
        "wire": np.where(client, wire, np.nan),
        "wait": np.where(client, np.minimum(wait, rows["max"]), wait),
        "lasts": _ratio(rows["transferred"], rows["events"]),
    }


def parts(rows: Array, first_bytes: bool) -> dict[str, Array]:
    """What an average exchange of each row is made of, ns; not a number where it is not known.

    Of a client's wire, the smallest round-trip time is the network's, and the rest the peer's. A transfer that pauses
    as long as an acknowledgement is delayed is a stall.
    """
    client = rows["side"] == Side.CLIENT
    mean = averages(rows, first_bytes)
    wire = np.where(np.isnan(mean["wire"]), mean["first"], mean["wire"])
    network = np.minimum(rows["min_rtt_us"] * 1e3, wire)
    stalls = client & (rows["gaps"] * 2 > rows["events"])

    def of(where: Array, values: Array) -> Array:
        return np.where(where, values, np.nan)

    return {
        "network": of(client, network), "peer": of(client, wire - network), "wakeup": of(client, mean["wait"]),
        "transfer": of(client & ~stalls, mean["lasts"]), "stall": of(stalls, mean["lasts"]),
        "service": of(~client, mean["first"]), "reply": of(~client, mean["lasts"]),
        "pickup": of(~client, mean["wait"]),
    }  # fmt: skip


def _ratio(total: Array, count: Array) -> Array:
    """total / count, not a number where there is nothing to divide by."""
    ratio: Array = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return ratio


def verdict(rows: Array, first_bytes: bool) -> Array:
    """Of each row the part that takes most; nothing where there was no exchange."""
    shares = np.stack(
        [np.full(len(rows), -1.0), *(np.nan_to_num(part, nan=-1) for part in parts(rows, first_bytes).values())]
    )
    which: Array = np.array(VERDICTS)[shares.argmax(axis=0)]
    return which


SUMS = ("events", "sum", "wait", "unsplit", "unsplit_sum", "squares", "transferred", "gaps")
TRANSPORT = ("sent", "received", "retransmits", "no_room")


def merge(rows: Array, groups: Array, summed: tuple[str, ...] = SUMS) -> Array:
    """Rows of one group added up, in the order of their last ones.

    Args:
        rows: Of dtype ROW, oldest first.
        groups: The group of each row, from 0, none left out.
        summed: Fields that are added up; all others but min, max and origin are the last row's.
    """
    count, places = int(groups.max()) + 1, np.arange(len(rows))
    first, last = np.full(count, len(rows)), np.zeros(count, np.intp)
    np.minimum.at(first, groups, places)
    np.maximum.at(last, groups, places)
    merged = chosen(rows, last)
    merged["origin"] = rows["origin"][first]
    for name in summed:
        merged[name] = 0
        np.add.at(merged[name], groups, rows[name])
    np.minimum.at(merged["min"], groups, rows["min"])
    np.maximum.at(merged["max"], groups, rows["max"])
    return chosen(merged, np.argsort(last))


def identity(rows: Array) -> Array:
    """What tells a row's connection from others, as one opaque value for each."""
    packed = np.zeros(len(rows), [("who", ROW["who"]), ("origin", "u1")])
    packed["who"], packed["origin"] = rows["who"], rows["origin"]
    identity: Array = packed.view(f"V{packed.itemsize}")
    return identity


def merge_evicted(rows: Array) -> Array:
    """Parts of a connection that left the kernel's table and came again, as one row."""
    if not (rows["end"] == End.EVICTED).any():
        return rows
    who = np.ascontiguousarray(rows["who"]).view(f"V{ROW['who'].itemsize}")
    _, groups = np.unique(who, return_inverse=True)
    # The kernel uses a socket's address again: what follows an end that was no eviction is another connection.
    order = np.argsort(groups, kind="stable")
    ended = rows["end"][order] != End.EVICTED
    fresh = np.r_[True, (groups[order][1:] != groups[order][:-1]) | ended[:-1]]
    numbered = np.empty(len(rows), np.intp)
    numbered[order] = np.cumsum(fresh) - 1
    return merge(rows, numbered)
