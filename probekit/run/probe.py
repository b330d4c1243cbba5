"""A probe that is attached: what its sources have goes through its decoders to its aggregators.

Like `measure`, which drives it, it needs NumPy.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
from attrs import frozen

from ..drain.ring import RingReader
from ..errors import LoadError, ProbekitError
from ..load import Loaded
from ..machine.kernel import KernelFacts
from ..machine.look import Machine
from ..model import (
    Aggregator,
    Attached,
    Batch,
    Columns,
    Decoder,
    Deferred,
    Ender,
    Events,
    Figures,
    Joiner,
    LiveMap,
    Planned,
    Reader,
    Source,
    Streamer,
    Table,
)
from ..model.rows import stacked
from ..plugins import AGGREGATORS, PROBES, Blaming, Plugins
from .clock import Clock


@frozen
class Part:
    """An aggregator of a probe.

    Attributes:
        aggregator: Its own, or one that was added.
        blaming: Around calls of it.
        name: Of one that was added: what goes before its names.
    """

    aggregator: Aggregator
    blaming: Callable[[str], Blaming]
    name: str = ""


class Sources:
    """What a probe's data comes from, each with its decoder.

    Ring buffers are emptied by `collect`, which any thread may call; everything else belongs to the main one.

    Attributes:
        rings: Readers of ring buffers.
        maps: Readers of all others.

    Args:
        readers: All of them.
        now: The time, ns of the programs' clock.
    """

    def __init__(self, readers: list[tuple[Reader, Decoder]], now: Callable[[], int]) -> None:
        self.rings = [(r, decode) for r, decode in readers if isinstance(r, RingReader)]
        self.maps = [(r, decode) for r, decode in readers if not isinstance(r, RingReader)]
        self._now = now
        self._collected: list[list[Batch]] = [[] for _ in self.rings]
        self._lock = threading.Lock()

    @property
    def foreign(self) -> int:
        """Records that were of another size than their layout."""
        return sum(reader.foreign for reader, _ in self.rings)

    def collect(self) -> None:
        """Takes what the ring buffers have, so that they do not fill while the main thread is busy."""
        with self._lock:
            for (reader, _), collected in zip(self.rings, self._collected, strict=True):
                batch = reader.read()
                if batch is not None:
                    collected.append(attrs.evolve(batch, taken=self._now()))

    def collected(self) -> list[tuple[Decoder, Batch]]:
        """What was collected so far, a batch for each ring buffer that had something; what comes meanwhile is left."""
        with self._lock:
            found, self._collected = self._collected, [[] for _ in self.rings]
        return [(decode, _whole(batches)) for (_, decode), batches in zip(self.rings, found, strict=True) if batches]

    def end(self, moment: int) -> None:
        """From here on all that is read is as it was at a moment, ns: nothing has counted since."""
        self._now = lambda: moment

    def record(self, into: list[Batch]) -> None:
        """From here on batches are kept in a list, too, when they are decoded."""

        def recording(decode: Decoder) -> Decoder:
            def decoder(batch: Batch) -> Columns:
                into.append(batch)
                return decode(batch)

            return decoder

        self.rings = [(reader, recording(decode)) for reader, decode in self.rings]
        self.maps = [(reader, recording(decode)) for reader, decode in self.maps]

    def read(self) -> list[tuple[Decoder, Batch]]:
        """What the maps have now."""
        read = ((decode, reader.read()) for reader, decode in self.maps)
        return [(decode, attrs.evolve(batch, taken=self._now())) for decode, batch in read if batch is not None]


def _whole(batches: list[Batch]) -> Batch:
    """Batches of one ring buffer as one: a thousand small ones would be decoded and aggregated a thousand times."""
    if len(batches) == 1:
        return batches[0]
    return attrs.evolve(batches[-1], data=stacked([batch.data for batch in batches]))


class Running:
    """A probe in the kernel, with what stands behind it in user space.

    Attributes:
        name: The probe's name.
        loaded: Its programs and maps.
        sources: Where its data comes from.
        failed: Told of what its plugins fail with. What failed costs what it was at, and is counted in `lost`.
    """

    def __init__(
        self, name: str, loaded: Loaded, sources: Sources, parts: list[Part], failed: Callable[[ProbekitError], None]
    ) -> None:
        self.name = name
        self.loaded = loaded
        self.sources = sources
        self.failed = failed
        self._own, *self._added = parts
        self._failures: Counter[str] = Counter()
        self._last: dict[str, Figures] = {}
        self._streams = True  # as far as is known

    def aggregate(self) -> None:
        """Decodes and aggregates what was collected so far."""
        for decode, batch in self.sources.collected():
            self.take(decode, batch)

    def drain(self) -> None:
        """Decodes and aggregates everything that the sources have now.

        What left a table while it was read is in a ring buffer, which is therefore read after it; and before it, so
        that nothing else is.
        """
        self.loaded.iterate()
        self.sources.collect()
        self.aggregate()
        for decode, batch in self.sources.read():
            self.take(decode, batch)
        self.sources.collect()
        self.aggregate()

    def end(self) -> None:
        """The run is over, and all was drained."""
        for part in (self._own, *self._added):
            if isinstance(part.aggregator, Ender):
                try:
                    with part.blaming("the end"):
                        part.aggregator.end()
                except ProbekitError as error:
                    self._fail(f"{_prefix(part)}ends_failed", error)

    def stream(self) -> Events | None:
        """Events since the last call, where there are some; what their names are from is drained before."""
        streamer = self._own.aggregator
        if not isinstance(streamer, Streamer) or not self._streams:
            return None
        self.drain()
        try:
            with self._own.blaming("streaming events"):
                table = streamer.stream()
        except ProbekitError as error:
            self._fail("events_unstreamed", error)
            return None
        self._streams = table is not None
        return Events(self.name, table) if table is not None and len(table.key) else None

    @property
    def joins(self) -> bool:
        """Whether it wants the figures of the other probes."""
        return isinstance(self._own.aggregator, Joiner)

    def figures(self, beside: Mapping[str, Figures] = {}) -> Figures:
        """The probe's figures, with what the core lost.

        An aggregator that fails costs this snapshot: what it had to say the last time is said again, and `lost` says
        how often that was so.

        Args:
            beside: Figures of other probes of the run, for one that joins them with its own.
        """
        figures = self._of(self._own, beside)
        for part in self._added:
            figures = joined(figures, part.name, self._of(part))
        lost = {
            **figures.lost, "programs_missed": self.loaded.missed(), "records_undecoded": self.sources.foreign,
            **self._failures,
        }  # fmt: skip
        if self.loaded.unreached:
            lost["namespaces_unreached"] = self.loaded.unreached
        if self.loaded.unlisted:
            lost["iterators_failed"] = self.loaded.unlisted
        return attrs.evolve(figures, lost=lost)

    def take(self, decode: Decoder, batch: Batch) -> None:
        """Decodes and aggregates one batch."""
        try:
            with self._own.blaming(f"decoding {batch.source}"):
                columns = attrs.evolve(decode(batch), taken=batch.taken)
        except ProbekitError as error:
            self._fail("batches_undecoded", error)
            return
        for part in (self._own, *self._added):
            given = columns if part is self._own else _read_only(columns)
            try:
                with part.blaming(f"update with {batch.source}"):
                    part.aggregator.update(given)
            except ProbekitError as error:
                self._fail(f"{_prefix(part)}batches_not_counted", error)

    def _of(self, part: Part, beside: Mapping[str, Figures] = {}) -> Figures:
        try:
            if isinstance(part.aggregator, Joiner):
                with part.blaming("join"):
                    part.aggregator.join(beside)
            with part.blaming("snapshot"):
                figures = part.aggregator.snapshot()
                figures = attrs.evolve(
                    figures, tables=Blamed.of(figures.tables, part), news=Blamed.of(figures.news, part)
                )
        except ProbekitError as error:
            self._fail(f"{_prefix(part)}snapshots_failed", error)
            figures = self._last.get(part.name, Figures({}))
        self._last[part.name] = figures
        return figures

    def _fail(self, cause: str, error: ProbekitError) -> None:
        """Counts; says the first of a kind, because what fails once mostly goes on."""
        self._failures[cause] += 1
        if self._failures[cause] == 1:
            self.failed(error)


class Blamed(Deferred):
    """Tables that are made later, perhaps in an exporter's thread: what they raise is their maker's fault."""

    @classmethod
    def of(cls, tables: Any, part: Part) -> Any:
        """These tables; as they are where they are made already."""

        def make() -> tuple[Table, ...]:
            with part.blaming("making tables"):
                return tuple(tables)

        return cls(make) if isinstance(tables, Deferred) else tables


def _prefix(part: Part) -> str:
    return f"{part.name}." if part.name else ""


def joined(figures: Figures, name: str, more: Figures) -> Figures:
    """A probe's figures with those of an aggregator that was added, whose names begin with its own and a dot.

    Args:
        figures: The probe's.
        name: The aggregator's name.
        more: Its figures. Events are streamed by the probe alone.
    """

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{name}.{key}": value for key, value in values.items()}

    def beside(own: Sequence[Table], added: Sequence[Table]) -> Deferred:
        return Deferred(lambda: (*own, *(attrs.evolve(table, name=f"{name}.{table.name}") for table in added)))

    return attrs.evolve(
        figures,
        summary={**figures.summary, **named(more.summary)},
        tables=beside(figures.tables, more.tables),
        news=None if figures.news is None and more.news is None else beside(figures.latest, more.latest),
        distributions=(
            *figures.distributions,
            *(attrs.evolve(each, name=f"{name}.{each.name}") for each in more.distributions),
        ),
        lost={**figures.lost, **named(more.lost)},
    )


def _read_only(columns: Columns) -> Columns:
    """The same columns, for somebody who shares them."""
    values = {name: array.view() for name, array in columns.values.items()}
    for array in values.values():
        array.flags.writeable = False
    return Columns(columns.source, values, columns.taken)


def open_sources(
    planned: Planned, loaded: Loaded, plugins: Plugins, kernel: KernelFacts, clock: Clock, stack: ExitStack
) -> Sources:
    """Opens the sources of an attached probe; the stack closes them."""
    call = functools.partial(plugins.call, PROBES, planned.name, probe=planned.name, config=planned.config)
    readers: list[tuple[Reader, Decoder]] = []
    for source in planned.plan.sources:
        live = loaded.maps[source.name]
        reader = _reader(source, live, kernel.cpus)
        stack.callback(reader.close)
        readers.append((reader, call("probekit_decode", source=source, map=live)))
    return Sources(readers, clock.now)


def _reader(source: Source, live: LiveMap, cpus: int) -> Reader:
    try:
        return source.open(live, cpus)
    except OSError as error:
        raise LoadError(f"the map {source.name} cannot be read: {error.strerror}") from error


def parts_of(
    planned: Planned, plugins: Plugins, attached: tuple[Attached, ...], began: int, machine: Machine
) -> list[Part]:
    """A probe's own aggregator, and those that are added to it."""
    arguments: dict[str, Any] = {
        "probe": planned.name, "config": planned.config, "attached": attached, "began": began,
        "machine": machine,
    }  # fmt: skip
    own = plugins.call(PROBES, planned.name, "probekit_aggregate", **arguments)
    parts = [Part(own, functools.partial(plugins.blaming, PROBES, planned.name))]
    for added in planned.aggregates:
        aggregator = plugins.call(
            AGGREGATORS, added.kind, "probekit_aggregate", **{**arguments, "config": added.settings}
        )
        parts.append(Part(aggregator, functools.partial(plugins.blaming, AGGREGATORS, added.kind), added.kind))
    return parts
