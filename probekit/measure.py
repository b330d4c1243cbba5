"""The running measurement: the maps are drained until somebody ends it, and every snapshot is exported.

It is imported when all programs are attached already: it needs NumPy, whose import takes longer than attaching.
"""

from __future__ import annotations

import functools
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import attrs
from attrs import define, field

from .config import RunSettings
from .drain import Reader, RingReader, open_reader
from .errors import ExportError
from .kernel import KernelFacts
from .load import Loaded
from .model import Aggregator, Batch, Decoder, Exporter, Figures, Joiner, Snapshot
from .pipeline import Planned
from .plugins import PROBES, Plugins
from .stop import Stop

_POLL_SECONDS = 0.25  # at most this long nobody looks at a ring buffer that no program asks to be looked at
_SETTLE_SECONDS = 0.005  # a program that runs while it is detached has ended by then


class Running:
    """A probe in the kernel, with what stands behind it in user space.

    Ring buffers are emptied by `collect`, which any thread may call; everything else belongs to the main one.

    Attributes:
        name: The probe's name.
        loaded: Its programs and maps.
        rings: Readers of its ring buffers, with their decoders.
    """

    def __init__(
        self, name: str, loaded: Loaded, readers: list[tuple[Reader, Decoder]], aggregator: Aggregator
    ) -> None:
        self.name = name
        self.loaded = loaded
        self.rings = [(r, decode) for r, decode in readers if isinstance(r, RingReader)]
        self._maps = [(r, decode) for r, decode in readers if not isinstance(r, RingReader)]
        self._aggregator = aggregator
        self._collected: deque[tuple[Decoder, Batch]] = deque()
        self._lock = threading.Lock()

    def collect(self) -> None:
        """Takes what the ring buffers have, so that they do not fill while the main thread is busy."""
        with self._lock:
            for reader, decode in self.rings:
                batch = reader.read()
                if batch is not None:
                    self._collected.append((decode, batch))

    def aggregate(self) -> None:
        """Decodes and aggregates what was collected."""
        while self._collected:
            decode, batch = self._collected.popleft()
            self._aggregator.update(decode(batch))

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
                self._aggregator.update(decode(batch))
        self.collect()
        self.aggregate()

    @property
    def joins(self) -> bool:
        """Whether it wants the figures of the other probes."""
        return isinstance(self._aggregator, Joiner)

    def figures(self, beside: Mapping[str, Figures] = {}) -> Figures:
        """The probe's figures, with what the core lost.

        Args:
            beside: Figures of other probes of the run, for one that joins them with its own.
        """
        if isinstance(self._aggregator, Joiner):
            self._aggregator.join(beside)
        figures = self._aggregator.snapshot()
        foreign = sum(reader.foreign for reader, _ in self.rings)
        lost = {**figures.lost, "programs_missed": self.loaded.missed(), "records_undecoded": foreign}
        if self.loaded.unreached:
            lost["namespaces_unreached"] = self.loaded.unreached
        return attrs.evolve(figures, lost=lost)


class Collector(threading.Thread):
    """Collects from the ring buffers of all probes when a program asks for it, and now and then."""

    def __init__(self, running: list[Running]) -> None:
        super().__init__(name="collector", daemon=True)
        self._running = running
        self._over = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        with select.epoll() as poll:
            for running in self._running:
                for reader, _ in running.rings:
                    poll.register(reader.fd, select.EPOLLIN | select.EPOLLET)
            while not self._over.is_set():
                poll.poll(_POLL_SECONDS)
                for running in self._running:
                    running.collect()

    def end(self) -> None:
        """Waits for the last round."""
        self._over.set()
        self.join()


def start(planned: Planned, loaded: Loaded, plugins: Plugins, kernel: KernelFacts, stack: ExitStack) -> Running:
    """Opens the sources of an attached probe; the stack closes them."""
    call = functools.partial(plugins.call, PROBES, planned.name, probe=planned.name, config=planned.config)
    readers: list[tuple[Reader, Decoder]] = []
    for source in planned.plan.sources:
        live = loaded.maps[source.map]
        reader = open_reader(source, live, kernel.cpus)
        stack.callback(reader.close)
        readers.append((reader, call("probekit_decode", source=source, map=live)))
    return Running(planned.name, loaded, readers, call("probekit_aggregate"))


@define
class Measurement:
    """From attached programs to the last snapshot.

    Attributes:
        running: The probes.
        exporters: The chain, entered.
        kernel: Facts.
        stop: Set to end it.
        failures: What exporters fail with is added; those that failed get no further snapshot.
    """

    running: list[Running]
    exporters: list[Exporter]
    kernel: KernelFacts
    stop: Stop
    failures: list[ExportError]
    started: float = field(factory=time.time)

    def run(self, settings: RunSettings, progress: Callable[[Snapshot], None]) -> None:
        """Drains until the duration is over or `stop` is set, then detaches and exports the last snapshots.

        Args:
            settings: Duration and interval.
            progress: Called with each probe's snapshot at each interval.
        """
        began = time.monotonic()
        end = began + settings.duration if settings.duration is not None else float("inf")
        tick = began + settings.interval
        collector = Collector(self.running)
        collector.start()
        try:
            while self.exporters and time.monotonic() < end:
                if self.stop.wait(max(0.0, min(_POLL_SECONDS, end - time.monotonic(), tick - time.monotonic()))):
                    break
                for running in self.running:
                    running.aggregate()
                if tick <= time.monotonic() < end:
                    tick += settings.interval
                    for running in self.running:
                        running.drain()
                    for snapshot in self._snapshots(final=False):
                        self._export(snapshot)
                        progress(snapshot)
        finally:
            collector.end()
        taken = time.time()
        for running in self.running:
            running.loaded.iterate()
            running.loaded.detach()
        time.sleep(_SETTLE_SECONDS)
        for running in self.running:
            running.drain()
        for snapshot in self._snapshots(final=True, taken=taken):
            self._export(snapshot)

    def _snapshots(self, final: bool, taken: float | None = None) -> Iterator[Snapshot]:
        """One of each probe; a probe that joins others' figures with its own comes after them."""
        figures: dict[str, Figures] = {}
        for running in sorted(self.running, key=lambda running: running.joins):
            figures[running.name] = running.figures(figures)
            yield Snapshot(
                probe=running.name,
                started=self.started,
                taken=taken or time.time(),
                final=final,
                kernel=self.kernel.release,
                attached=running.loaded.attached,
                figures=figures[running.name],
            )

    def _export(self, snapshot: Snapshot) -> None:
        for exporter in list(self.exporters):
            try:
                exporter.export(snapshot)
            except ExportError as error:
                self.exporters.remove(exporter)
                self.failures.append(error)
