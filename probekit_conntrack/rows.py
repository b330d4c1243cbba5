"""Connections as rows: the kernel's records, with what belongs together put together."""

from __future__ import annotations

from typing import Any

import numpy as np

from probekit import Array
from probekit.aggregate import chosen
from probekit.host import jiffy_us

from .values import UNKNOWN, Closer, End, Origin, Side

_MOMENTS = ("began", "established", "accepted", "ended", "changed")
_SUMS = ("acked", "received", "min_rtt_us")
_NUMBERS = (
    "netns", "pid", "syn_retransmits", "peer_idle", "error", "segments_out", "segments_in", "data_segments_out",
    "data_segments_in", "retransmits", "srtt_us", "cwnd", "idle",
)  # fmt: skip

ROW = np.dtype(
    [(name, "u8") for name in ("socket", "id", "cgroup", *_MOMENTS, "handshake", *_SUMS)]
    + [("dwell", "u8", 12)]
    + [(name, "u4") for name in _NUMBERS]
    + [(name, "u1") for name in ("side", "origin", "state", "closer", "end", "time_wait", "told")]
    + [("command", "S16"), ("local", "u1", 16), ("remote", "u1", 16), ("local_port", "u2"), ("remote_port", "u2")]
)
"""A connection: `struct connection` of the C source, flat; and whether a snapshot told of its end."""

JIFFY_US = jiffy_us()
"""Microseconds of a tick of the kernel, which is what this clock counts."""

SERVICE = np.dtype([("netns", "u4"), ("side", "u1"), ("command", "S16"), ("address", "u1", 16), ("port", "u2")])
"""What a connection is one of: the client's peer, or the server's own end, of the processes of one command."""


def rows_of(values: Any) -> Array:
    """Decoded records of the kernel as rows; those that are just being made are left out."""
    rows = np.zeros(len(values["socket"]), ROW)
    for name in ROW.names or ():
        if name != "told":
            rows[name] = values[name]
    made = rows["socket"] != 0
    return rows if made.all() else chosen(rows, made)


def identity(rows: Array) -> Array:
    """What tells a row's connection from others of the same socket, as one opaque value for each."""
    packed = np.zeros(len(rows), [("socket", "u8"), ("began", "u8")])
    packed["socket"], packed["began"] = rows["socket"], rows["began"]
    opaque: Array = packed.view("V16")
    return opaque


def apply_late_resets(rows: Array, sockets: Array, times: Array) -> None:
    """Marks the connections for which a reset was sent after their sockets had been destroyed.

    Args:
        rows: Of dtype ROW, closed; they are changed.
        sockets: Shape (n,), the socket of each reset.
        times: Shape (n,), when it was sent, ns.
    """
    order = np.lexsort((rows["ended"], rows["socket"]))
    keys = rows["socket"][order]
    for socket, sent in zip(sockets.tolist(), times.tolist(), strict=True):
        first, last = np.searchsorted(keys, [socket, socket + 1])
        before = [place for place in order[first:last].tolist() if rows["ended"][place] <= sent]
        if before:
            place = before[-1]
            rows["end"][place], rows["time_wait"][place], rows["told"][place] = End.RST_SENT, 0, 0
            if rows["closer"][place] == Closer.NOBODY:
                rows["closer"][place] = Closer.LOCAL


def services_of(rows: Array) -> tuple[Array, Array]:
    """The services of rows.

    Returns:
        Distinct ones, of dtype SERVICE, and the place of each row's in them.
    """
    keys = np.zeros(len(rows), SERVICE)
    client = rows["side"] == Side.CLIENT
    for name in ("netns", "side", "command"):
        keys[name] = rows[name]
    keys["address"] = np.where(client[:, None], rows["remote"], rows["local"])
    keys["port"] = np.where(client, rows["remote_port"], rows["local_port"])
    distinct, places = np.unique(keys.view(f"V{SERVICE.itemsize}"), return_inverse=True)
    return distinct.view(SERVICE), places.ravel()


def span(start: Array, stop: Array) -> Array:
    """Nanoseconds from one moment to another.

    Args:
        start: Shape (n,), ns; 0 where it is not known.
        stop: Shape (n,), ns; 0 where it is not known.

    Returns:
        Shape (n,); not a number where one of them is not known, or they are in the wrong order: that is no time at all.
    """
    known = (start > 0) & (stop >= start)
    spans: Array = np.where(known, stop - start, np.uint64(0)).astype(np.float64)
    spans[~known] = np.nan
    return spans


def make_possible(rows: Array, began: int, now: int) -> None:
    """Puts the times of rows into the run, and into the order of a life.

    The clock that programs read may go back by some nanoseconds between two CPUs, and a record may be copied in the
    middle of a change: such a difference would be 584 years, or the time since the machine was started.

    Args:
        rows: Of dtype ROW; they are changed.
        began: When the run did, ns.
        now: When the last of the rows was taken, ns.
    """
    for name in _MOMENTS:
        rows[name] = np.where(rows[name] > 0, np.clip(rows[name], max(began, 1), max(now, 1)), 0)
    over = rows["ended"] > 0
    rows["ended"][over] = np.maximum(rows["ended"], rows["began"])[over]
    for name in ("established", "changed"):
        rows[name][over] = np.minimum(rows[name], rows["ended"])[over]


def accept_wait(rows: Array) -> Array:
    """What connections waited to be accepted, ns; not a number where they were never established, or not accepted.

    With TCP Fast Open a connection may be accepted before it is established: it has not waited for that.
    """
    return span(rows["established"], rows["accepted"])


def handshake(rows: Array) -> Array:
    """How long handshakes took, ns; not a number where the kernel does not know.

    A client's is part of its life, from its birth until it is established; a server's is before that, since the machine
    was started.
    """
    most = np.where(rows["side"] == Side.CLIENT, span(rows["began"], rows["established"]), rows["established"] - 1.0)
    took: Array = rows["handshake"].astype(np.float64)
    took[~((took > 0) & (took <= most))] = np.nan
    return took


def idle_us(rows: Array, life: Array) -> Array:
    """Microseconds since data was last sent or received; not a number where a connection was never established.

    Args:
        rows: Of dtype ROW.
        life: Shape (n,), how long they lived, us: of those born in the run no part is longer.
    """
    idle, born = jiffies_us(rows["idle"]), rows["origin"] == Origin.BIRTH
    idle[born & (rows["established"] == 0)] = np.nan
    return np.where(born, np.minimum(idle, life), idle)


def jiffies_us(jiffies: Array) -> Array:
    """Jiffies in microseconds, not a number where they are not known."""
    microseconds: Array = np.where(jiffies == UNKNOWN, np.nan, jiffies * JIFFY_US)
    return microseconds


def most_requests(rows: Array) -> Array:
    """How many requests each connection carried at most: a request and its response are at least a segment each."""
    most: Array = np.minimum(rows["data_segments_out"], rows["data_segments_in"])
    return most
