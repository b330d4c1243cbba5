"""Columns of the latency probe to figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from probekit import Column, Columns, Distribution, Figures, Table
from probekit.aggregate import Histogram, Moments
from probekit.decode import endpoint_text, text
from probekit.model import Array

from .config import LatencyConfig
from .values import End, Measure, Origin, Side

_HELP = {
    Measure.REQUEST: "client sockets: a request enters the send, until the first of its response is handed over",
    Measure.WIRE: "part of a request: sent, until data is at the socket (network, peer, network)",
    Measure.WAKEUP: "part of a request: data at the socket, until it is handed to the program",
    Measure.SERVICE: "server sockets: a request is handed over, until its response enters the send",
    Measure.PICKUP: "server sockets, before a service: data at the socket, until it is handed to the program",
}
_OTHERS = "(other connections)"
_UNSEEN = np.uint64(2**64 - 1)

# A connection as it is kept here: the kernel's record, its 128-bit sum of squares as a float.
_ROW = np.dtype(
    [
        (
            "who",
            [("socket", "u8"), ("local", "u1", 16), ("remote", "u1", 16), ("local_port", "u2"), ("remote_port", "u2")],
        )
    ]
    + [(name, "u1") for name in ("side", "origin", "end")]
    + [(name, "u8") for name in ("events", "sum", "min", "max", "wait", "unsplit", "sent", "received", "retransmits")]
    + [("squares", "f8"), ("pid", "u4"), ("srtt_us", "u4")]
)


def _rows(values: Any) -> Array:
    """Decoded records of the kernel as rows, those that had an exchange."""
    measured = values["events"] > 0
    rows = np.zeros(int(measured.sum()), _ROW)
    for name in _ROW["who"].names or ():
        rows["who"][name] = values[name][measured]
    for name in (_ROW.names or ())[1:]:
        if name != "squares":
            rows[name] = values[name][measured]
    rows["squares"] = values["square_high"][measured] * 2.0**64 + values["square_low"][measured]
    return rows


_SUMS = ("events", "sum", "wait", "unsplit", "squares")
_TRANSPORT = ("sent", "received", "retransmits")


def _merge(rows: Array, groups: Array, summed: tuple[str, ...] = _SUMS) -> Array:
    """Rows of one group added up, in the order of their last ones.

    Args:
        rows: Of dtype _ROW, oldest first.
        groups: The group of each row, from 0, none left out.
        summed: Fields that are added up; all others but min, max and origin are the last row's.
    """
    count, places = int(groups.max()) + 1, np.arange(len(rows))
    first, last = np.full(count, len(rows)), np.zeros(count, np.intp)
    np.minimum.at(first, groups, places)
    np.maximum.at(last, groups, places)
    merged = rows[last]
    merged["origin"] = rows["origin"][first]
    for name in summed:
        merged[name] = 0
        np.add.at(merged[name], groups, rows[name])
    np.minimum.at(merged["min"], groups, rows["min"])
    np.maximum.at(merged["max"], groups, rows["max"])
    return merged[np.argsort(last)]


def _identity(rows: Array) -> Array:
    """What tells a row's connection from others, as one opaque value for each."""
    packed = np.zeros(len(rows), [("who", _ROW["who"]), ("origin", "u1")])
    packed["who"], packed["origin"] = rows["who"], rows["origin"]
    identity: Array = packed.view(f"V{packed.itemsize}")
    return identity


def _merge_evicted(rows: Array) -> Array:
    """Parts of a connection that left the kernel's table and came again, as one row."""
    if not (rows["end"] == End.EVICTED).any():
        return rows
    who = np.ascontiguousarray(rows["who"]).view(f"V{_ROW['who'].itemsize}")
    _, groups = np.unique(who, return_inverse=True)
    # The kernel uses a socket's address again: what follows an end that was no eviction is another connection.
    order = np.argsort(groups, kind="stable")
    ended = rows["end"][order] != End.EVICTED
    fresh = np.r_[True, (groups[order][1:] != groups[order][:-1]) | ended[:-1]]
    numbered = np.empty(len(rows), np.intp)
    numbered[order] = np.cumsum(fresh) - 1
    return _merge(rows, numbered)


class LatencyAggregator:
    """Keeps the figures of one run."""

    def __init__(self, config: LatencyConfig) -> None:
        self._config = config
        self._closed = np.zeros(0, _ROW)
        self._others = np.zeros(0, _ROW)
        self._pending: list[Array] = []
        self._pending_rows = 0
        self._open = np.zeros(0, _ROW)
        self._left: list[Array] = []  # what came with the ring buffer after the table was read
        self._table_is_new = False
        self._counters: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._histograms = {measure: Histogram() for measure in Measure}
        self._undelivered: Any = None
        self._fresh: list[Any] = []

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""
        getattr(self, f"_take_{columns.source}")(columns.values)

    def snapshot(self) -> Figures:
        """The figures as they are now."""
        self._compact()
        self._drop_those_that_left()
        stream, self._fresh = self._fresh, []
        return Figures(
            summary=self._summary(),
            tables=(self._connections(),),
            distributions=self._distributions(),
            lost=self._lost(),
            stream=self._stream(stream) if self._config.mode == "events" else None,
        )

    def _take_connections(self, values: Any) -> None:
        self._open, self._left = _rows(values), []
        self._table_is_new = True

    def _take_closed(self, values: Any) -> None:
        rows = _rows(values)
        if self._table_is_new:
            self._left.append(rows)
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows > self._config.max_closed:
            self._compact()

    def _take_owners(self, values: Any) -> None:
        self._owners.update(zip(values["key"].tolist(), text(values["name"]).tolist(), strict=True))

    def _take_counters(self, values: Any) -> None:
        self._counters = {name: int(value[0]) for name, value in values.items()}

    def _take_histograms(self, values: Any) -> None:
        self._histograms = {measure: Histogram(values["counts"][measure]) for measure in Measure}

    def _take_undelivered(self, values: Any) -> None:
        self._undelivered = values

    def _take_events(self, values: Any) -> None:
        self._fresh.append(values)
        client = values["side"] == Side.CLIENT
        split = values["wait"] != _UNSEEN
        latency, wait = values["latency"], values["wait"]
        for measure, chosen in (
            (Measure.REQUEST, latency[client]),
            (Measure.SERVICE, latency[~client]),
            (Measure.WAKEUP, wait[client & split]),
            (Measure.PICKUP, wait[~client & split]),
            (Measure.WIRE, (latency - wait)[client & split]),
        ):
            self._histograms[measure].add(chosen)

    def _compact(self) -> None:
        """Adds the pending rows to the closed ones, and the oldest of too many to two rows, one a side."""
        if self._pending:
            self._closed = _merge_evicted(np.concatenate([self._closed, *self._pending]))
            self._pending, self._pending_rows = [], 0
        surplus = len(self._closed) - self._config.max_closed
        if surplus > 0:
            leaving = np.concatenate([self._others, self._closed[:surplus]])
            _, sides = np.unique(leaving["side"], return_inverse=True)
            self._others, self._closed = _merge(leaving, sides, _SUMS + _TRANSPORT), self._closed[surplus:]

    def _drop_those_that_left(self) -> None:
        """Connections that left the table after it was read, and came with the ring buffer, are not open."""
        if self._left:
            left = np.concatenate([_identity(rows) for rows in self._left])
            self._open = self._open[~np.isin(_identity(self._open), left)]
        self._left, self._table_is_new = [], False

    @property
    def _primary(self) -> Measure:
        """What the main figures are of: the two ends of a loopback connection must not be added up."""
        return Measure.REQUEST if self._histograms[Measure.REQUEST].events else Measure.SERVICE

    def _summary(self) -> dict[str, Any]:
        count = self._counters.get
        produced = {"produced": count("events", 0)} if self._config.mode == "events" else {}
        return {
            "measure": self._primary.name.lower(),
            "total_events": self._histograms[self._primary].events,
            "event_type_breakdown": {
                measure.name.lower(): self._histograms[measure].events for measure in (Measure.REQUEST, Measure.SERVICE)
            },
            **produced,
            "sample": self._config.sample,
            "sampled_out": count("sampled_out", 0),
            "unanswered": count("unanswered", 0),
            "connections_seen": count("connections", 0),
            "connections_evicted": count("evicted", 0),
        }

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "events_ring_full": count("events_lost", 0),
            "connections_ring_full": count("closed_lost", 0),
            "table_contended": count("contended", 0),
            "outliers": count("outliers", 0),
            "clock": count("clock", 0),
        }

    def _distributions(self) -> tuple[Distribution, ...]:
        if self._config.mode == "aggregate":
            for side, measure in ((Side.CLIENT, Measure.REQUEST), (Side.SERVER, Measure.SERVICE)):
                self._histograms[measure].moments = self._moments(side)
        first = self._primary
        return tuple(
            self._histograms[measure].distribution(measure.name.lower(), _HELP[measure])
            for measure in sorted(Measure, key=lambda measure: measure is not first)
        )

    def _moments(self, side: Side) -> Moments:
        """Exact moments of all exchanges of one side: the kernel keeps them for each connection, and only there."""
        total = Moments()
        for rows in (self._closed, self._others, self._open):
            mine = rows[rows["side"] == side]
            if len(mine):
                events, squares = int(mine["events"].sum()), float(mine["squares"].sum())
                total += Moments(
                    events, int(mine["sum"].sum()), squares, int(mine["min"].min()), int(mine["max"].max())
                )
        for lost in self._undelivered_of(side):
            total += lost
        return total

    def _undelivered_of(self, side: Side) -> list[Moments]:
        """Moments of connections whose records found no room, one of each CPU."""
        if self._undelivered is None:
            return []
        names = ("side", "events", "sum", "square_high", "square_low", "min", "max")
        return [
            Moments(events, total, (high << 64) + low, least, most)
            for which, events, total, high, low, least, most in zip(
                *(self._undelivered[name].tolist() for name in names), strict=True
            )
            if which == side
        ]

    def _names(self, pids: Array) -> Array:
        distinct, inverse = np.unique(pids, return_inverse=True)
        names: Array = np.array([self._owners.get(pid, "") for pid in distinct.tolist()], dtype=np.str_)
        return names[inverse] if len(pids) else names

    def _connections(self) -> Table:
        rows = _merge_evicted(np.concatenate([self._closed, self._open]))
        rows = rows[np.argsort(-rows["events"].astype(np.int64), kind="stable")]
        sums = np.concatenate([rows, self._others])
        events = sums["events"].astype(np.float64)
        mean = _ratio(sums["sum"], events)
        variance = np.maximum(_ratio(sums["squares"], events) - mean**2, 0)
        split = events - sums["unsplit"]
        wait = _ratio(sums["wait"], split)
        listed = np.arange(len(sums)) < len(rows)
        who = sums["who"]
        source = np.where(listed, endpoint_text(who["local"], who["local_port"]), _OTHERS)
        destination = np.where(listed, endpoint_text(who["remote"], who["remote_port"]), _OTHERS)
        return Table(
            name="connections",
            key=_unique(
                [f"{here} -> {there}" for here, there in zip(source.tolist(), destination.tolist(), strict=True)]
            ),
            columns=(
                Column("source", source, label=True, help="the socket's own address"),
                Column("destination", destination, label=True, help="its peer's"),
                Column(
                    "side", _words(Side, sums["side"]), label=True, help="who opened the connection: client or server"
                ),
                Column(
                    "pid", np.where(listed, sums["pid"], 0), label=True, help="process that began the last exchange"
                ),
                Column("process", np.where(listed, self._names(sums["pid"]), ""), label=True, help="its command name"),
                Column("events", sums["events"], total=True, help="requests of a client, services of a server"),
                Column("min_latency_us", sums["min"] / 1e3, help="shortest"),
                Column("avg_latency_us", mean / 1e3, help="average"),
                Column("max_latency_us", sums["max"] / 1e3, help="longest"),
                Column("std_dev_us", np.sqrt(variance) / 1e3, help="standard deviation"),
                Column(
                    "avg_wire_us",
                    np.where(sums["side"] == Side.CLIENT, mean - wait, np.nan) / 1e3,
                    help="average of a request's part until its response is at the socket",
                ),
                Column("avg_wakeup_us", wait / 1e3, help="average time of data at the socket until handed over"),
                Column("srtt_us", np.where(listed, sums["srtt_us"], 0), help="the kernel's smoothed round-trip time"),
                Column("bytes_sent", sums["sent"], total=True, help="over the connection's life, without retransmits"),
                Column("bytes_received", sums["received"], total=True, help="over the connection's life"),
                Column("retransmits", sums["retransmits"], total=True, help="segments, over the connection's life"),
                Column(
                    "state",
                    np.where(listed, _words(End, sums["end"]), "closed"),
                    label=True,
                    help="open or closed; evicted: left, and not seen since",
                ),
                Column(
                    "older",
                    listed & (sums["origin"] == Origin.UNSEEN),
                    label=True,
                    help="its beginning was not seen by this run",
                ),
            ),
            headline=("source", "destination", "side", "process", "pid", "events", "avg_latency_us", "max_latency_us"),
        )

    def _stream(self, batches: list[Any]) -> Table:
        names = ("time", "latency", "wait", "local", "remote", "local_port", "remote_port", "side", "pid", "srtt_us")
        if batches:
            values = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
        else:
            values = {name: np.zeros((0, 16) if name in ("local", "remote") else 0, "u1") for name in names}
        source = endpoint_text(values["local"], values["local_port"])
        destination = endpoint_text(values["remote"], values["remote_port"])
        return Table(
            name="events",
            key=np.arange(len(source)),
            columns=(
                Column("time_ns", values["time"], label=True, help="CLOCK_MONOTONIC when it ended"),
                Column("type", np.where(values["side"] == Side.CLIENT, "request", "service"), label=True),
                Column("source", source, label=True),
                Column("destination", destination, label=True),
                Column("pid", values["pid"], label=True),
                Column("process", self._names(values["pid"]), label=True),
                Column("latency_us", values["latency"] / 1e3),
                Column("wakeup_us", np.where(values["wait"] == _UNSEEN, np.nan, values["wait"] / 1e3)),
                Column("srtt_us", values["srtt_us"]),
            ),
        )


def _ratio(total: Array, count: Array) -> Array:
    """total / count, not a number where there is nothing to divide by."""
    ratio: Array = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return ratio


def _words(kind: type[Side] | type[End], values: Array) -> Array:
    words: Array = np.array([member.name.lower() for member in kind], dtype=np.str_)[values]
    return words


def _unique(keys: list[str]) -> Array:
    """Keys with a number where one stands for several connections, one after the other."""
    if len(set(keys)) < len(keys):
        seen: dict[str, int] = {}
        for place, key in enumerate(keys):
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 1:
                keys[place] = f"{key} #{seen[key]}"
    return np.array(keys, dtype=np.str_)
