"""The running measurement: the maps are drained until somebody ends it, and every snapshot is exported.

It is imported when all programs are attached already: it needs NumPy, whose import takes longer than attaching.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator

from attrs import define, field

from .config import RunSettings
from .errors import ExportError, ProbekitError
from .kernel import KernelFacts
from .model import Exporter, Figures, Snapshot
from .running import Running
from .stop import Stop

_POLL_SECONDS = 0.25  # at most this long nobody looks at a ring buffer that no program asks to be looked at
_SETTLE_SECONDS = 0.005  # a program that runs while it is detached has ended by then


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


@define
class Measurement:
    """From attached programs to the last snapshot.

    Attributes:
        running: The probes.
        exporters: The chain, entered.
        kernel: Facts.
        stop: Set to end it.
        failures: What exporters and probes fail with is added. An exporter that failed gets no further snapshot, and
            of a probe that failed there is none.
    """

    running: list[Running]
    exporters: list[Exporter]
    kernel: KernelFacts
    stop: Stop
    failures: list[ProbekitError]
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
            while self.exporters and not all(r.broken for r in self.running) and time.monotonic() < end:
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
        for running in self.running:
            self.failures += running.failures

    def _snapshots(self, final: bool, taken: float | None = None) -> Iterator[Snapshot]:
        """One of each probe that has figures; a probe that joins others' with its own comes after them."""
        beside: dict[str, Figures] = {}
        for running in sorted(self.running, key=lambda running: running.joins):
            figures = running.figures(beside)
            if figures is None:
                continue
            beside[running.name] = figures
            yield Snapshot(
                probe=running.name,
                started=self.started,
                taken=taken or time.time(),
                final=final,
                kernel=self.kernel.release,
                attached=running.loaded.attached,
                figures=figures,
            )

    def _export(self, snapshot: Snapshot) -> None:
        for exporter in list(self.exporters):
            try:
                exporter.export(snapshot)
            except ExportError as error:
                self.exporters.remove(exporter)
                self.failures.append(error)
