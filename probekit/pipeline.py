"""The stages, one after the other: the only module that imports all of them.

config -> plan -> compile -> load -> attach -> drain -> decode -> aggregate -> export
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import attrs
from attrs import define, field, frozen

from .compile import compile_plan
from .config import Settings
from .drain import Reader, RingReader, open_reader
from .errors import ExportError
from .kernel import KernelFacts
from .load import Loaded
from .model import Aggregator, AttachPlan, Batch, Decoder, Exporter, Figures, Object, Snapshot
from .plugins import EXPORTERS, PROBES, Plugins
from .stop import Stop

_POLL_SECONDS = 0.25  # at most this long nobody looks at a ring buffer that no program asks to be looked at
_SETTLE_SECONDS = 0.005  # a program that runs while it is detached has ended by then


@frozen
class Planned:
    """A probe that is put together but has not touched the kernel.

    Attributes:
        name: The probe's name.
        config: An instance of its configuration class.
        plan: What it wants of the kernel.
    """

    name: str
    config: Any
    plan: AttachPlan


@frozen
class Compiled:
    """A probe that is ready to be loaded."""

    planned: Planned
    object: Object


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
        self.collect()
        self.aggregate()
        for reader, decode in self._maps:
            batch = reader.read()
            if batch is not None:
                self._aggregator.update(decode(batch))
        self.collect()
        self.aggregate()

    def figures(self) -> Figures:
        """The probe's figures, with what the core lost."""
        figures = self._aggregator.snapshot()
        foreign = sum(reader.foreign for reader, _ in self.rings)
        lost = {**figures.lost, "programs_missed": self.loaded.missed(), "records_undecoded": foreign}
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


@define
class Outcome:
    """What became of a run.

    Attributes:
        failures: What exporters failed with; those that failed got no further snapshot.
    """

    failures: list[ExportError] = field(factory=list)


def plan(settings: Settings, plugins: Plugins, kernel: KernelFacts) -> list[Planned]:
    """Stage 2: asks each probe what it wants."""
    return [
        Planned(name, config, plugins.call(PROBES, name, "probekit_attach", probe=name, config=config, kernel=kernel))
        for name, config in settings.probes.items()
    ]


def compile_all(planned: list[Planned], kernel: KernelFacts) -> list[Compiled]:
    """Stage 3."""
    return [Compiled(probe, compile_plan(probe.plan, kernel)) for probe in planned]


def load(probe: Compiled, plugins: Plugins, kernel: KernelFacts, stack: ExitStack) -> Running:
    """Stages 4 and 5: loads and attaches one probe and opens its sources; the stack takes it off again."""
    name, config, attach_plan = probe.planned.name, probe.planned.config, probe.planned.plan
    loaded = stack.enter_context(Loaded(probe.object, attach_plan, kernel))
    readers: list[tuple[Reader, Decoder]] = []
    for source in attach_plan.sources:
        live = loaded.maps[source.map]
        reader = open_reader(source, live, kernel.cpus)
        stack.callback(reader.close)
        arguments = {"probe": name, "config": config, "source": source, "map": live}
        readers.append((reader, plugins.call(PROBES, name, "probekit_decode", **arguments)))
    aggregator = plugins.call(PROBES, name, "probekit_aggregate", probe=name, config=config)
    loaded.attach()
    return Running(name, loaded, readers, aggregator)


@define
class Run:
    """A measurement from its attached programs to its last snapshot.

    Attributes:
        settings: The configuration.
        running: The probes.
        exporters: The chain, entered.
        kernel: Facts.
        stop: Set to end the run.
    """

    settings: Settings
    running: list[Running]
    exporters: list[Exporter]
    kernel: KernelFacts
    stop: Stop
    outcome: Outcome = field(factory=Outcome)
    started: float = field(factory=time.time)

    def measure(self, progress: Callable[[Snapshot], None]) -> Outcome:
        """Drains until the duration is over or `stop` is set, then detaches and exports the last snapshots.

        Args:
            progress: Called with each probe's snapshot at each interval.
        """
        began = time.monotonic()
        duration = self.settings.run.duration
        end = began + duration if duration is not None else float("inf")
        tick = began + self.settings.run.interval
        collector = Collector(self.running)
        collector.start()
        try:
            while self.exporters and time.monotonic() < end:
                if self.stop.wait(max(0.0, min(_POLL_SECONDS, end - time.monotonic(), tick - time.monotonic()))):
                    break
                for running in self.running:
                    running.aggregate()
                if tick <= time.monotonic() < end:
                    tick += self.settings.run.interval
                    for running in self.running:
                        running.drain()
                        snapshot = self._snapshot(running, final=False)
                        self._export(snapshot)
                        progress(snapshot)
        finally:
            collector.end()
        taken = time.time()
        for running in self.running:
            running.loaded.detach()
        time.sleep(_SETTLE_SECONDS)
        for running in self.running:
            running.drain()
            self._export(self._snapshot(running, final=True, taken=taken))
        return self.outcome

    def _snapshot(self, running: Running, final: bool, taken: float | None = None) -> Snapshot:
        return Snapshot(
            probe=running.name,
            started=self.started,
            taken=taken or time.time(),
            final=final,
            kernel=self.kernel.release,
            attached=running.loaded.attached,
            figures=running.figures(),
        )

    def _export(self, snapshot: Snapshot) -> None:
        for exporter in list(self.exporters):
            try:
                exporter.export(snapshot)
            except ExportError as error:
                self.exporters.remove(exporter)
                self.outcome.failures.append(error)


def run(
    settings: Settings,
    plugins: Plugins,
    kernel: KernelFacts,
    stop: Stop,
    attached: Callable[[Mapping[str, Loaded]], None],
    progress: Callable[[Snapshot], None],
) -> Outcome:
    """Puts a run together, measures, and takes everything off again.

    Args:
        settings: The configuration.
        plugins: The installed plugins.
        kernel: Facts.
        stop: Set to end the run.
        attached: Called once, when every program is attached.
        progress: Called with each probe's snapshot at each interval.

    Raises:
        ProbekitError: Something is wrong with the input or the machine; nothing is left attached.
    """
    compiled = compile_all(plan(settings, plugins, kernel), kernel)
    outcome = Outcome()
    with ExitStack() as stack:
        exporters: list[Exporter] = []
        for export in settings.exports:
            arguments = {"exporter": export.kind, "config": export.settings}
            exporter = plugins.call(EXPORTERS, export.kind, "probekit_export", **arguments)
            try:
                exporter.__enter__()
            except ExportError as error:
                outcome.failures.append(error)
                continue
            stack.push(_closing(exporter, outcome))
            exporters.append(exporter)
        if not exporters:
            return outcome
        running = [load(probe, plugins, kernel, stack) for probe in compiled]
        attached({probe.name: probe.loaded for probe in running})
        Run(settings, running, exporters, kernel, stop, outcome).measure(progress)
    return outcome


def _closing(exporter: Exporter, outcome: Outcome) -> Callable[..., None]:
    """Leaves an exporter when the run is over; its failure is the outcome's, not the run's."""

    def leave(*error: Any) -> None:
        try:
            exporter.__exit__(*error)
        except ExportError as failure:
            outcome.failures.append(failure)

    return leave
