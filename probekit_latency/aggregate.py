"""Columns of the latency probe to figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from probekit import Array, Columns, Deferred, Distribution, Figures, Table
from probekit.aggregate import Histogram, Lives, Moments, chosen, stacked
from probekit.decode import text

from . import tables
from .config import LatencyConfig
from .rows import ROW, SUMS, TRANSPORT, identity, merge, merge_evicted, rows_of
from .values import LONGEST, UNSEEN, Measure, Side

_HELP = {
    Measure.REQUEST: "client sockets: a request enters the send, until the first of its response is handed over",
    Measure.WIRE: "part of a request: sent, until data is at the socket (network, peer, network)",
    Measure.WAKEUP: "part of a request: data at the socket, until it is handed to the program",
    Measure.SERVICE: "server sockets: a request is handed over, until its response enters the send",
    Measure.PICKUP: "server sockets, before a service: data at the socket, until it is handed to the program",
}


class LatencyAggregator:
    """Keeps the figures of one run."""

    def __init__(self, config: LatencyConfig) -> None:
        self._config = config
        self._lives = Lives(ROW, config.max_closed, identity, merge_evicted, self._fold)
        self._others = np.zeros(0, ROW)
        self._first: Measure | None = None
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
        self._lives.settle()
        whole, news = self._tables()
        self._lives.told()
        return Figures(
            summary=self._summary(),
            tables=whole,
            news=news,
            distributions=self._distributions(),
            lost=self._lost(),
        )

    def stream(self) -> Table | None:
        """Exchanges since the last call."""
        fresh, self._fresh = self._fresh, []
        return tables.events(fresh, self._owners) if self._config.mode == "events" else None

    def _tables(self) -> tuple[Deferred, Deferred]:
        """All tables, and what is new in them. Text for 100,000 rows takes a while, and not everybody wants it."""
        kept, others, owners = self._lives.rows(), self._others, dict(self._owners)

        def made(news: bool) -> tuple[Table, ...]:
            rows = merge_evicted(kept)
            return (tables.connections(chosen(rows, rows["told"] == 0) if news else rows, others, owners),)

        return Deferred(lambda: made(news=False)), Deferred(lambda: made(news=True))

    def _take_connections(self, values: Any) -> None:
        self._lives.now_open(rows_of(values))

    def _take_closed(self, values: Any) -> None:
        self._lives.end(rows_of(values))

    def _take_owners(self, values: Any) -> None:
        self._owners.update(zip(values["key"].tolist(), text(values["name"]).tolist(), strict=True))

    def _take_counters(self, values: Any) -> None:
        self._counters = {name: int(value[0]) for name, value in values.items()}

    def _take_histograms(self, values: Any) -> None:
        for measure in list(Measure)[: len(values["counts"])]:
            self._histograms[measure] = Histogram(values["counts"][measure])

    def _take_undelivered(self, values: Any) -> None:
        self._undelivered = values

    def _take_events(self, values: Any) -> None:
        client = values["side"] == Side.CLIENT
        latency, wait = values["latency"], values["wait"]
        split = wait <= np.where(client, latency, LONGEST)  # a wakeup is part of its request
        self._fresh.append({**values, "wait": np.where(split, wait, np.uint64(UNSEEN))})
        for measure, times in (
            (Measure.REQUEST, latency[client]),
            (Measure.SERVICE, latency[~client]),
            (Measure.WAKEUP, wait[client & split]),
            (Measure.PICKUP, wait[~client & split]),
            (Measure.WIRE, (latency - wait)[client & split]),
        ):
            self._histograms[measure].add(times)

    def _fold(self, rows: Array) -> None:
        """Adds connections up in two rows, one a side."""
        leaving = stacked([self._others, rows])
        _, sides = np.unique(leaving["side"], return_inverse=True)
        self._others = merge(leaving, sides, SUMS + TRANSPORT)

    @property
    def _primary(self) -> Measure:
        """What the main figures are of: the two ends of a loopback connection must not be added up.

        It stays what it is once there was an exchange: figures of a run that change their meaning are of no use.
        """
        if self._first is None:
            there = [each for each in (Measure.REQUEST, Measure.SERVICE) if self._histograms[each].events]
            self._first = there[0] if there else None
        return self._first or Measure.REQUEST

    def _summary(self) -> dict[str, Any]:
        count, measure = self._counters.get, self._primary
        produced = {"produced": count("events", 0)} if self._config.mode == "events" else {}
        return {
            "measure": measure.name.lower() if self._first is not None else None,
            "total_events": self._histograms[measure].events,
            "event_type_breakdown": {
                measure.name.lower(): self._histograms[measure].events for measure in (Measure.REQUEST, Measure.SERVICE)
            },
            **produced,
            "sample": self._config.sample,
            "sampled_out": count("sampled_out", 0),
            "unanswered": count("unanswered", 0),
            "begun_before": count("older", 0),
            "connections_seen": count("connections", 0),
            "connections_evicted": count("evicted", 0),
        }

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "events_ring_full": count("events_lost", 0),
            "connections_ring_full": count("closed_lost", 0),
            "exchanges_evicted": count("cut", 0),
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
        for rows in (self._lives.ended, self._others, self._lives.open):
            mine = rows["side"] == side
            if mine.any():
                events, sums, squares, least, most = (
                    rows[name][mine] for name in ("events", "sum", "squares", "min", "max")
                )
                total += Moments(
                    int(events.sum()), int(sums.sum()), float(squares.sum()), int(least.min()), int(most.max())
                )
        for lost in self._undelivered_of(side):
            total += lost
        return total

    def _undelivered_of(self, side: Side) -> list[Moments]:
        """Moments of connections whose records found no room, one of each CPU."""
        if self._undelivered is None:
            return []
        names = ("side", "events", "sum", "square_high", "square_middle", "square_low", "min", "max")
        return [
            Moments(events, total, (high << 64) + (middle << 32) + low, least, most)
            for which, events, total, high, middle, low, least, most in zip(
                *(self._undelivered[name].tolist() for name in names), strict=True
            )
            if which == side
        ]
