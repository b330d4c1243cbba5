"""What an aggregator has to say."""

from __future__ import annotations

import enum
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from attrs import field, frozen

from .batch import Array
from .object import Attached


class Kind(str, enum.Enum):
    """What a column's values are, for who adds them up or draws them."""

    COUNTER = "counter"  # it only ever grows
    GAUGE = "gauge"  # it goes up and down
    INFORMATION = "information"  # it says which row this is, or what it is like


_UNITS = (
    (re.compile(r"_per_s$"), "1/s"), (re.compile(r"_us$"), "us"), (re.compile(r"_ms$"), "ms"),
    (re.compile(r"_ns$"), "ns"), (re.compile(r"_s$"), "s"), (re.compile(r"_percent$"), "percent"),
    (re.compile(r"_share$"), "ratio"), (re.compile(r"(^|_)bytes(_|$)"), "bytes"),
)  # fmt: skip


@frozen
class Column:
    """A column of a table.

    Attributes:
        name: As in JSON and CSV, its unit included: `avg_latency_us`, `bytes_sent`, `churn_per_s`.
        values: One for each row.
        label: It says which row this is, rather than being measured.
        total: It only ever grows.
        help: One line for people.
    """

    name: str
    values: Array
    label: bool = False
    total: bool = False
    help: str = ""

    @property
    def kind(self) -> Kind:
        """What its values are."""
        return Kind.INFORMATION if self.label else Kind.COUNTER if self.total else Kind.GAUGE

    @property
    def unit(self) -> str:
        """The unit that its name says; empty for what is counted, and for information that is no time."""
        return next((unit for pattern, unit in _UNITS if pattern.search(self.name)), "")


@frozen
class Table:
    """Rows of figures.

    Attributes:
        name: As in JSON: `connections`.
        columns: Columns of one length.
        key: One text for each row that names it, unique.
        headline: Columns that a narrow screen shows, best first; all where empty.
    """

    name: str
    columns: tuple[Column, ...]
    key: Array
    headline: tuple[str, ...] = ()


class Deferred(Sequence[Table]):
    """Tables that are made when somebody looks at them for the first time, in whatever thread that is.

    Args:
        make: Makes them; it must not depend on what changes later.
    """

    def __init__(self, make: Callable[[], tuple[Table, ...]]) -> None:
        self._make = make
        self._made: tuple[Table, ...] | None = None
        self._lock = threading.Lock()  # exporters look from threads of their own

    def _tables(self) -> tuple[Table, ...]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def __len__(self) -> int:
        return len(self._tables())

    @overload
    def __getitem__(self, place: int) -> Table: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Table]: ...
    def __getitem__(self, place: int | slice) -> Table | Sequence[Table]:
        return self._tables()[place]


@frozen
class Bucket:
    """A bucket of a histogram that people read: low <= value < high, give or take a bucket of the fine one.

    Attributes:
        label: As it is shown: `1-5ms`.
        low: Smallest value that belongs to it, in the distribution's unit.
        high: Smallest value that no longer does; infinite for the last bucket.
        count: How many values.
    """

    label: str
    low: float
    high: float
    count: int


SCHEME = "log-linear/64"
"""How the buckets of `Distribution.counts` are cut: each power of two into 64, of ns."""


@frozen
class Distribution:
    """A measured quantity.

    Attributes:
        name: `request`.
        unit: Of all figures but the counts: `us`.
        help: One line for people.
        events: How many values.
        min: Smallest, exact; None without events, like the next three.
        max: Largest, exact.
        mean: Exact.
        std: Standard deviation of all values, exact.
        percentiles: `p99.9` -> value, at most 0.8 % off; empty without events.
        buckets: A coarse histogram.
        counts: The log-linear histogram: counts of buckets, mergeable by adding.
    """

    name: str
    unit: str
    help: str
    events: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    percentiles: Mapping[str, float]
    buckets: tuple[Bucket, ...]
    counts: Array


@frozen
class Figures:
    """What an aggregator has to say.

    Attributes:
        summary: Single figures, by their JSON names.
        tables: All that is kept. The first one is the main one.
        distributions: The first one is the main one.
        lost: What is missing in the figures, by cause.
        news: The tables with those rows only that are open, or changed since the last snapshot: what is written in
            mid-run, so that it does not grow as the run does. None: it is all of them.
    """

    summary: Mapping[str, Any]
    tables: Sequence[Table] = ()
    distributions: tuple[Distribution, ...] = ()
    lost: Mapping[str, int] = field(factory=dict)
    news: Sequence[Table] | None = None

    @property
    def latest(self) -> Sequence[Table]:
        """`news`; all tables where a probe makes no difference."""
        return self.tables if self.news is None else self.news


@frozen
class Events:
    """Events that a probe streams, as they were collected.

    Attributes:
        probe: Its name.
        table: A row for each; there is one at least.
    """

    probe: str
    table: Table


@frozen
class Run:
    """What the snapshots of one run have in common.

    Attributes:
        id: Different for each run; empty for snapshots that are of none.
        host: Name of the machine.
        boot: The kernel's random number of its start (boot_id).
        began: When programs began to count, ns of CLOCK_MONOTONIC of the initial time namespace, which they read.
        anchor: The same moment, ns of Unix time.
    """

    id: str = ""
    host: str = ""
    boot: str = ""
    began: int = 0
    anchor: int = 0


@frozen
class Snapshot:
    """The state of a run as exporters get it.

    Attributes:
        probe: Its name.
        started: Unix seconds.
        taken: Unix seconds.
        final: The last one of the run.
        kernel: Release of the kernel.
        attached: What was attached, and how.
        figures: The probe's figures; `lost` includes what the core lost.
        run: Which run it is of.
        sequence: How many moments of the run had snapshots before; those of one moment have the same.
    """

    probe: str
    started: float
    taken: float
    final: bool
    kernel: str
    attached: tuple[Attached, ...]
    figures: Figures
    run: Run = Run()
    sequence: int = 0

    @property
    def shown(self) -> Sequence[Table]:
        """Its tables as something that is replaced with each snapshot has them: the last one has all that is kept."""
        return self.figures.tables if self.final else self.figures.latest
