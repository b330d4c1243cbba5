"""A probe that is attached: what its sources have goes through its decoders to its aggregators.

Like `measure`, which drives it, it is imported when all programs are attached already: it needs NumPy.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import attrs
from attrs import frozen

from .drain import Reader, RingReader, open_reader
from .errors import ProbekitError
from .kernel import KernelFacts
from .load import Loaded
from .model import Aggregator, Attached, Batch, Columns, Decoder, Deferred, Figures, Joiner, Table
from .pipeline import Planned
from .plugins import AGGREGATORS, PROBES, Blaming, Plugins


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


class Running:
    """A probe in the kernel, with what stands behind it in user space.

    Ring buffers are emptied by `collect`, which any thread may call; everything else belongs to the main one.

    Attributes:
        name: The probe's name.
        loaded: Its programs and maps.
        rings: Readers of its ring buffers, with their decoders.
        failures: What its plugins failed with. An aggregator that was added is left out from then on.
        broken: Its decoder or its own aggregator failed: there is nothing to tell any more.
    """

    def __init__(self, name: str, loaded: Loaded, readers: list[tuple[Reader, Decoder]], parts: list[Part]) -> None:
        self.name = name
        self.loaded = loaded
        self.rings = [(r, decode) for r, decode in readers if isinstance(r, RingReader)]
        self.failures: list[ProbekitError] = []
        self._maps = [(r, decode) for r, decode in readers if not isinstance(r, RingReader)]
        self._own, *self._added = parts
        self.broken = False
        self._collected: deque[tuple[Decoder, Batch]] = deque()
        self._lock = threading.Lock()

    def collect(self) -> None:
        """Takes what the ring buffers have, so that they do not fill while the main thread is busy."""
        with self._lock:
            for reader, decode in self.rings:
                batch = reader.read()
                if batch is not None:
                    self._collected.append((decode, attrs.evolve(batch, taken=time.monotonic_ns())))

    def aggregate(self) -> None:
        """Decodes and aggregates what was collected."""
        while self._collected:
            self.take(*self._collected.popleft())

    def drain(self) -> None:
        """Decodes and aggregates everything that the sources have.

        What left a table while it was read is in a ring buffer, which is therefore read after it; and before it, so
        that nothing else is.
        """
        self.loaded.iterate()
        self.collect()
        self.aggregate()
        for reader, decode in self._maps:
            batch = reader.read()
            if batch is not None:
                self.take(decode, attrs.evolve(batch, taken=time.monotonic_ns()))
        self.collect()
        self.aggregate()

    @property
    def joins(self) -> bool:
        """Whether it wants the figures of the other probes."""
        return isinstance(self._own.aggregator, Joiner)

    def figures(self, beside: Mapping[str, Figures] = {}) -> Figures | None:
        """The probe's figures, with what the core lost; None where it is broken.

        Args:
            beside: Figures of other probes of the run, for one that joins them with its own.
        """
        figures = None if self.broken else self._of(self._own, beside)
        if figures is None:
            return None
        for part in list(self._added):
            more = self._of(part)
            if more is not None:
                figures = joined(figures, part.name, more)
        foreign = sum(reader.foreign for reader, _ in self.rings)
        lost = {**figures.lost, "programs_missed": self.loaded.missed(), "records_undecoded": foreign}
        if self.loaded.unreached:
            lost["namespaces_unreached"] = self.loaded.unreached
        return attrs.evolve(figures, lost=lost)

    def take(self, decode: Decoder, batch: Batch) -> None:
        """Decodes and aggregates one batch."""
        if self.broken:
            return
        try:
            with self._own.blaming(f"decoding {batch.source}"):
                columns = attrs.evolve(decode(batch), taken=batch.taken)
            with self._own.blaming(f"update with {batch.source}"):
                self._own.aggregator.update(columns)
        except ProbekitError as error:
            self._leave_out(self._own, error)
            return
        for part in list(self._added):
            try:
                with part.blaming(f"update with {batch.source}"):
                    part.aggregator.update(_read_only(columns))
            except ProbekitError as error:
                self._leave_out(part, error)

    def _of(self, part: Part, beside: Mapping[str, Figures] = {}) -> Figures | None:
        try:
            if isinstance(part.aggregator, Joiner):
                with part.blaming("join"):
                    part.aggregator.join(beside)
            with part.blaming("snapshot"):
                return part.aggregator.snapshot()
        except ProbekitError as error:
            self._leave_out(part, error)
            return None

    def _leave_out(self, part: Part, error: ProbekitError) -> None:
        self.failures.append(error)
        if part is self._own:
            self.broken = True
        else:
            self._added.remove(part)


def joined(figures: Figures, name: str, more: Figures) -> Figures:
    """A probe's figures with those of an aggregator that was added, whose names begin with its own and a dot.

    Args:
        figures: The probe's.
        name: The aggregator's name.
        more: Its figures. Events are streamed by the probe alone.
    """

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{name}.{key}": value for key, value in values.items()}

    def tables() -> tuple[Table, ...]:
        return (*figures.tables, *(attrs.evolve(table, name=f"{name}.{table.name}") for table in more.tables))

    return attrs.evolve(
        figures,
        summary={**figures.summary, **named(more.summary)},
        tables=Deferred(tables),
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


def start(planned: Planned, loaded: Loaded, plugins: Plugins, kernel: KernelFacts, stack: ExitStack) -> Running:
    """Opens the sources of an attached probe; the stack closes them."""
    call = functools.partial(plugins.call, PROBES, planned.name, probe=planned.name, config=planned.config)
    readers: list[tuple[Reader, Decoder]] = []
    for source in planned.plan.sources:
        live = loaded.maps[source.map]
        reader = open_reader(source, live, kernel.cpus)
        stack.callback(reader.close)
        readers.append((reader, call("probekit_decode", source=source, map=live)))
    return Running(planned.name, loaded, readers, parts_of(planned, plugins, loaded.attached, time.monotonic_ns()))


def parts_of(planned: Planned, plugins: Plugins, attached: tuple[Attached, ...], began: int) -> list[Part]:
    """A probe's own aggregator, and those that are added to it."""
    arguments: dict[str, Any] = {
        "probe": planned.name, "config": planned.config, "attached": attached, "began": began
    }  # fmt: skip
    own = plugins.call(PROBES, planned.name, "probekit_aggregate", **arguments)
    parts = [Part(own, functools.partial(plugins.blaming, PROBES, planned.name))]
    for added in planned.aggregates:
        aggregator = plugins.call(
            AGGREGATORS, added.kind, "probekit_aggregate", **{**arguments, "config": added.settings}
        )
        parts.append(Part(aggregator, functools.partial(plugins.blaming, AGGREGATORS, added.kind), added.kind))
    return parts
