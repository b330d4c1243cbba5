"""Columns of the connection tracker to figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from probekit import Array, Columns, Deferred, Distribution, Figures, Table, host
from probekit.aggregate import Histogram, Lives
from probekit.decode import identity_numbers
from probekit.host import OWN, Machine

from . import netfilter, tables
from .attach import namespace_path
from .cgroups import Cgroups
from .config import ConntrackConfig
from .findings import Evidence, findings
from .netfilter import Netfilter
from .pools import NO_REQUESTS, Moment, Pools, Requests, keys_of
from .rights import look_around
from .rows import (
    ROW,
    accept_wait,
    apply_late_resets,
    handshake,
    identity,
    make_possible,
    rows_of,
    services_of,
)
from .values import End, Origin, Side

_LONGEST = 2**36 - 1  # ns: what histograms hold
_JOINED = ("id", "side", "events", "avg_latency_us")
_HELP = {
    "handshake": "clients: SYN sent, until established",
    "handshake_server": "servers: SYN-ACK sent, until established",
    "accept_wait": "servers: established, until accepted",
}


class ConntrackAggregator:
    """Keeps the figures of one run.

    Args:
        config: The probe's options.
        began: When the run did, ns of the clock that programs read.
        machine: Is asked for what no map has.
    """

    def __init__(self, config: ConntrackConfig, began: int, machine: Machine) -> None:
        self._machine = machine
        self._most = config.max_closed
        self._moment = Moment(began, began)
        self._lives = Lives(ROW, config.max_closed, identity, self._with_late_resets, self._fold)
        self._late: list[tuple[Array, Array]] = []
        self._counters: dict[str, int] = {}
        self._folded: Counter[bytes] = Counter()  # closed connections that are kept no longer, by service
        self._folded_ends = np.zeros(len(End), np.int64)
        self._histograms = {name: Histogram() for name in _HELP}
        self._longer = 0
        self._requests = NO_REQUESTS
        self._cgroups = Cgroups(machine)
        self._namespace = namespace_path(config.netns) if config.netns else OWN
        self._namespace_number = machine.ask(host.inode, self._namespace) or 0  # it may be gone when looked at again
        self._netfilter_before = netfilter.read(machine, self._namespace)

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""
        self._moment = Moment(self._moment.began, max(self._moment.now, columns.taken))
        getattr(self, f"_take_{columns.source}")(columns.values)

    def join(self, beside: Mapping[str, Figures]) -> None:
        """Takes requests of connections from tables that have them by the connections' ids.

        Those of connections that had ended were taken when they were news.
        """
        found = [
            {column.name: column.values for column in table.columns}
            for figures in beside.values()
            for table in figures.latest
            if set(_JOINED) <= {column.name for column in table.columns}
        ]
        if found:
            new = _requests(*(np.concatenate([table[name] for table in found]) for name in _JOINED))
            self._requests = self._requests.updated(new)

    def snapshot(self) -> Figures:
        """The figures as they are now."""
        self._lives.settle()
        rows = self._lives.rows()
        self._requests = self._requests.kept(rows["id"])
        pools = Pools.of(rows, self._moment, self._requests)
        tracked = self._netfilter()
        clients = np.unique(rows["netns"][rows["side"] == Side.CLIENT]).tolist()
        around = self._machine.ask(look_around, self._namespace, self._namespace_number, clients)
        ports = {int(number): count for number, count in around["ports"].items()}
        evidence = Evidence(pools, ports, tracked)
        found = findings(evidence)
        folded = dict(self._folded)
        cgroups = self._cgroups.paths(set(np.unique(rows["cgroup"]).tolist()))
        whole, news = _tables(pools, folded, found, tracked, cgroups)
        self._lives.told()
        return Figures(
            summary={**self._summary(bool(tracked), len(found)), "not_known": around["not_known"]},
            tables=whole,
            news=news,
            distributions=self._distributions(),
            lost=self._lost(),
        )

    def _take_connections(self, values: Any) -> None:
        self._lives.now_open(self._rows(values))

    def _take_closed(self, values: Any) -> None:
        rows = self._rows(values)
        _add(self._histograms, rows)
        self._longer += _too_long(rows)
        self._lives.end(rows)

    def _rows(self, values: Any) -> Array:
        rows = rows_of(values)
        make_possible(rows, self._moment.began, self._moment.now)
        return rows

    def _take_late(self, values: Any) -> None:
        self._late.append((values["socket"], values["time"]))

    def _take_counters(self, values: Any) -> None:
        self._counters = {name: int(value[0]) for name, value in values.items()}

    def _with_late_resets(self, rows: Array) -> Array:
        for sockets, times in self._late:
            apply_late_resets(rows, sockets, times)
        self._late = []
        return rows

    def _fold(self, rows: Array) -> None:
        """Keeps numbers of what ended long ago, and no rows."""
        self._folded_ends += np.bincount(rows["end"], minlength=len(End))
        lived = (rows["established"] > 0) | (rows["origin"] == Origin.FOUND)
        services, places = services_of(rows)
        for service, count in zip(services, np.bincount(places[lived], minlength=len(services)).tolist(), strict=True):
            self._folded[service.tobytes()] += count
        if len(self._folded) > self._most:  # services are not bounded by anything else
            self._folded = Counter(dict(self._folded.most_common(self._most // 2)))

    def _summary(self, tracked: bool, found: int) -> dict[str, Any]:
        count = self._counters.get
        listed = self._lives.open
        over = listed["ended"] > 0
        still = len(listed) - int(over.sum())
        ends = self._folded_ends.copy()
        for end in (self._lives.ended["end"], listed["end"][over]):
            ends += np.bincount(end, minlength=len(End))
        return {
            "opened": count("opened_active", 0) + count("opened_passive", 0),
            "opened_active": count("opened_active", 0),
            "opened_passive": count("opened_passive", 0),
            "already_open": count("found", 0),
            "closed": count("handed_over", 0) + len(listed) - still,
            "still_open": still,
            "ends": {end.name.lower(): int(ends[end]) for end in End if end is not End.OPEN},
            "findings_made": found,
            "netfilter_table": "here" if tracked else "not here",
        }

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "table_full": count("untracked", 0),
            "table_full_again": count("unlisted", 0),
            "connections_ring_full": count("closed_lost", 0),
            "late_resets_ring_full": count("late_lost", 0),
            "outliers": self._longer,
        }

    def _distributions(self) -> tuple[Distribution, ...]:
        shown = {name: Histogram(histogram.counts, histogram.moments) for name, histogram in self._histograms.items()}
        _add(shown, self._lives.open)
        return tuple(histogram.distribution(name, _HELP[name]) for name, histogram in shown.items())

    def _netfilter(self) -> dict[int, Netfilter]:
        """Netfilter's table with what its counters counted since the run began."""
        table = netfilter.read(self._machine, self._namespace)
        if table is None:
            return {}
        before = self._netfilter_before.counters if self._netfilter_before else {}
        counters = {name: count - before.get(name, 0) for name, count in table.counters.items()}
        return {self._namespace_number: attrs.evolve(table, counters=counters)}


def _requests(ids: Array, sides: Array, events: Array, average_us: Array) -> Requests:
    """From columns of another probe's table; several rows of one connection are added up."""
    numbers = identity_numbers(ids)
    known = np.flatnonzero(numbers)
    numbers = numbers[known]
    side = np.where(sides[known] == "client", Side.CLIENT, Side.SERVER).astype(np.uint8)
    distinct, places = np.unique(keys_of(numbers, side), return_inverse=True)
    count = events[known].astype(np.float64)
    busy = np.nan_to_num(average_us[known]) * count
    sums = (np.bincount(places.ravel(), values, len(distinct)) for values in (count, busy))
    return Requests(distinct["id"], distinct["side"], *sums)


def _tables(
    pools: Pools, folded: Mapping[bytes, int], found: Any, tracked: Mapping[int, Netfilter], cgroups: Mapping[int, str]
) -> tuple[Deferred, Deferred]:
    """All tables, and what is new in them. Text for 100,000 rows takes a while, and not everybody wants it."""

    def others() -> tuple[Table, ...]:
        old = np.array([folded.get(service.tobytes(), 0) for service in pools.services], np.int64)
        return (
            tables.services(pools, old),
            tables.findings(found),
            tables.netfilter(tracked),
            tables.over_time(pools),
        )

    beside = Deferred(others)
    return (
        Deferred(lambda: (tables.connections(pools, cgroups, news=False), *beside)),
        Deferred(lambda: (tables.connections(pools, cgroups, news=True), *beside)),
    )


def _measures(rows: Array) -> dict[str, Array]:
    """Times of each distribution, ns."""
    shaken, waited, client = handshake(rows), accept_wait(rows), rows["side"] == Side.CLIENT
    times = {"handshake": shaken[client], "handshake_server": shaken[~client], "accept_wait": waited}
    return {name: values[~np.isnan(values)].astype(np.uint64) for name, values in times.items()}


def _add(histograms: Mapping[str, Histogram], rows: Array) -> None:
    for name, values in _measures(rows).items():
        histograms[name].add(values[values <= _LONGEST])


def _too_long(rows: Array) -> int:
    return sum(int((values > _LONGEST).sum()) for values in _measures(rows).values())
