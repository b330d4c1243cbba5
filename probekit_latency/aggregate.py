"""Columns of the latency probe to figures."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from probekit import Array, Columns, Deferred, Figures, Table
from probekit.aggregate import Histogram, Lives, Moments, chosen, stacked
from probekit.decode import text
from probekit.host import Machine, jiffy_us

from . import tables
from .attach import slow_ns, streams
from .config import LatencyConfig
from .distributions import Distributions, described
from .findings import findings
from .rows import ROW, SUMS, TRANSPORT, identity, merge, merge_evicted, rows_of
from .values import UNSEEN, Figure, Side


class LatencyAggregator:
    """Keeps the figures of one run.

    Args:
        config: The probe's.
        began: When the run did, ns.
        machine: Where the probe ran.
    """

    def __init__(self, config: LatencyConfig, began: int = 0, machine: Machine | None = None) -> None:
        self._jiffy_us = (machine or Machine()).ask(jiffy_us)
        self._config = config
        self._began = began
        self._outlier = round(config.outlier * 1e9)
        self._first_bytes = config.main == "first_byte"
        self._clients = Figure.FIRST_BYTE if self._first_bytes else Figure.REQUEST
        self._streams = streams(config)
        # what an exchange takes at least that streams when it is over; where a share does, that is not known here
        self._streams_from = slow_ns(config) if config.mode == "events" or config.slow else UNSEEN
        self._lives = Lives(ROW, config.max_closed, identity, merge_evicted, self._fold)
        self._others = np.zeros(0, ROW)
        self._primary: Figure | None = None
        self._counters: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._distributions = Distributions(config.mode == "events")
        self._taken = 0
        self._undelivered: Any = None
        self._fresh: list[Any] = []

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""
        if columns.source == "connections":
            self._taken = columns.taken
        getattr(self, f"_take_{columns.source}")(columns.values)

    def snapshot(self) -> Figures:
        """The figures as they are now."""
        self._lives.settle()
        whole, news = self._tables()
        self._lives.told()
        histograms = self._histograms()
        main = self._main(histograms)
        return Figures(
            summary=self._summary(histograms, main),
            tables=whole,
            news=news,
            distributions=described(histograms, main, longest_is_exact=not self._first_bytes),
            lost=self._lost(),
        )

    def end(self) -> None:
        """The run is over: what is under way goes no further."""
        if not self._streams:
            return
        self._lives.settle()
        rows = chosen(self._lives.open, self._due())
        self._take_events(self._distributions.pending_events(rows, self._taken))
        self._distributions.over = True

    def _due(self) -> Array:
        """Which open connections have an exchange that would stream if it were over now."""
        first, lasts = self._lives.open["first"], self._lives.open["lasts"]
        due: Array = (first != UNSEEN) & (first + lasts >= np.uint64(self._streams_from))
        return due

    def stream(self) -> Table | None:
        """Exchanges since the last call."""
        fresh, self._fresh = self._fresh, []
        return tables.events(fresh, self._owners) if self._streams else None

    def _tables(self) -> tuple[Deferred, Deferred]:
        """All tables, and what is new in them. Text for 100,000 rows takes a while, and not everybody wants it."""
        kept, others, owners = self._lives.rows(), self._others, dict(self._owners)
        taken, first_bytes = self._taken, self._first_bytes

        @functools.cache
        def whole() -> Array:
            return merge_evicted(kept)

        @functools.cache
        def found() -> Table:
            return tables.findings(findings(whole(), owners, first_bytes, self._jiffy_us))

        def made(news: bool) -> tuple[Table, ...]:
            rows = chosen(whole(), whole()["told"] == 0) if news else whole()
            return (tables.connections(rows, others, owners, taken, first_bytes), found())

        return Deferred(lambda: made(news=False)), Deferred(lambda: made(news=True))

    def _take_connections(self, values: Any) -> None:
        rows = rows_of(values, self._outlier, self._first_bytes)
        rows["since"][(rows["since"] < self._began) | (rows["since"] > self._taken)] = 0  # copied while it was written
        self._lives.now_open(rows)

    def _take_closed(self, values: Any) -> None:
        self._lives.end(rows_of(values, self._outlier, self._first_bytes))

    def _take_owners(self, values: Any) -> None:
        self._owners.update(zip(values["key"].tolist(), text(values["name"]).tolist(), strict=True))

    def _take_counters(self, values: Any) -> None:
        self._counters = {name: int(value[0]) for name, value in values.items()}

    def _take_histograms(self, values: Any) -> None:
        self._distributions.begun = values["counts"]

    def _take_longer(self, values: Any) -> None:
        self._distributions.longer = values["counts"]

    def _take_undelivered(self, values: Any) -> None:
        self._undelivered = values

    def _take_events(self, values: Any) -> None:
        self._fresh.append(self._distributions.add_events(values))

    def _fold(self, rows: Array) -> None:
        """Adds connections up in two rows, one a side."""
        leaving = stacked([self._others, rows])
        _, sides = np.unique(leaving["side"], return_inverse=True)
        self._others = merge(leaving, sides, SUMS + TRANSPORT)

    def _main(self, histograms: Mapping[Figure, Histogram]) -> Figure:
        """What the main figures are of: the two ends of a loopback connection must not be added up.

        It stays what it is once there was an exchange: figures of a run that change their meaning are of no use.
        """
        if self._primary is None:
            self._primary = next((each for each in (self._clients, Figure.SERVICE) if histograms[each].events), None)
        return self._primary or self._clients

    def _summary(self, histograms: Mapping[Figure, Histogram], main: Figure) -> dict[str, Any]:
        count = self._counters.get
        produced = {"produced": count("events", 0) + int(self._due().sum())} if self._streams else {}
        waiting = self._lives.open["since"]
        mine = (self._lives.open["side"] == Side.CLIENT) & (waiting > 0)
        return {
            "measure": main.value if self._primary is not None else None,
            "total_events": histograms[main].events,
            "event_type_breakdown": {
                figure.value: histograms[figure].events for figure in (Figure.REQUEST, Figure.SERVICE)
            },
            **produced,
            "in_flight": int(mine.sum()),
            "in_flight_longest_us": max(self._taken - int(waiting[mine].min()), 0) / 1e3 if mine.any() else None,
            "in_service": int((waiting > 0).sum() - mine.sum()),
            "sample": self._config.sample,
            "sampled_out": count("sampled_out", 0),
            "unanswered": count("unanswered", 0),
            "streams": count("streams", 0),
            "begun_before": count("older", 0),
            "connections_seen": count("connections", 0),
            "connections_evicted": count("evicted", 0),
        }

    def _histograms(self) -> dict[Figure, Histogram]:
        """Of each figure; with exact moments where the kernel keeps them: for each connection, and only there."""
        histograms = self._distributions.histograms(self._lives.open)
        if self._config.mode == "aggregate":
            for side, figure in ((Side.CLIENT, self._clients), (Side.SERVER, Figure.SERVICE)):
                histograms[figure].moments = self._moments(side)
        return histograms

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "events_ring_full": count("events_lost", 0),
            "connections_ring_full": count("closed_lost", 0),
            "slow_held_back": count("held_back", 0),
            "exchanges_evicted": count("cut", 0),
            "table_contended": count("contended", 0),
            "outliers": count("outliers", 0),
            "clock": count("clock", 0),
        }

    def _moments(self, side: Side) -> Moments:
        """Exact moments of all exchanges of one side."""
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
