"""The running measurement: from the moment at which programs begin to count to the last snapshot.

It needs NumPy, which is imported while the programs are attached.
"""

from __future__ import annotations

import select
import threading
import time

from attrs import frozen

from ..config import RunSettings
from ..export.chain import Chain
from ..load import Gate
from ..machine.kernel import KernelFacts
from ..model import Figures, Run, Snapshot
from .clock import Clock
from .probe import Running, Sources
from .stop import Stop

_POLL_SECONDS = 0.25  # at most this long nobody looks at a ring buffer that no program asks to be looked at
_PAUSE_SECONDS = 0.002  # between two looks at ring buffers: each keeps other threads from running for a while
_SETTLE_SECONDS = 0.005  # a program that was running when the gate closed has ended by then
_NANOSECONDS = 1_000_000_000


class Collector(threading.Thread):
    """Collects from the ring buffers of all probes when a program asks for it, and now and then."""

    def __init__(self, sources: list[Sources]) -> None:
        super().__init__(name="collector", daemon=True)
        self._sources = sources
        self._over = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        with select.epoll() as poll:
            for sources in self._sources:
                for reader, _ in sources.rings:
                    poll.register(reader.fd, select.EPOLLIN | select.EPOLLET)
            while not self._over.is_set():
                poll.poll(_POLL_SECONDS)
                for sources in self._sources:
                    sources.collect()
                self._over.wait(_PAUSE_SECONDS)

    def end(self) -> None:
        """Waits for the last round."""
        self._over.set()
        self.join()


class Ending(threading.Thread):
    """Closes the gate when the time is over or the end is asked for, whatever the main thread is busy with.

    Attributes:
        moment: When the gate was closed, ns of the programs' clock.
        over: Set then.

    Args:
        gate: What to close.
        clock: The programs'.
        stop: Asks for the end.
        end: When the time is over, ns; None: never.
    """

    def __init__(self, gate: Gate, clock: Clock, stop: Stop, end: int | None) -> None:
        super().__init__(name="ending", daemon=True)
        self.moment = 0
        self.over = threading.Event()
        self._gate = gate
        self._clock = clock
        self._asked = stop
        self._end = end

    def run(self) -> None:
        """Waits, and closes."""
        self._asked.wait(None if self._end is None else max(self._end - self._clock.now(), 0) / _NANOSECONDS)
        self._gate.close()
        self.moment = self._clock.now()
        self.over.set()


@frozen
class Begun:
    """Probes that count.

    Attributes:
        running: The probes.
        collector: Collects from their ring buffers.
        gate: Open.
        clock: The programs'.
        began: When the gate was opened, ns of that clock.
        run: Which run it is.
    """

    running: list[Running]
    collector: Collector
    gate: Gate
    clock: Clock
    began: int
    run: Run

    def close(self) -> None:
        """Closes the gate; nothing is produced any more."""
        self.gate.close()
        time.sleep(_SETTLE_SECONDS)
        for running in self.running:
            running.loaded.end()


@frozen
class Measurement:
    """From the open gate to the last snapshot.

    Attributes:
        begun: The probes.
        chain: The exporters, open.
        kernel: Facts.
        stop: Set to end it.
    """

    begun: Begun
    chain: Chain
    kernel: KernelFacts
    stop: Stop

    def run(self, settings: RunSettings) -> None:
        """Aggregates until the duration is over or `stop` is set, then detaches and exports the last snapshots."""
        begun, duration = self.begun, settings.duration
        end = None if duration is None else begun.began + round(duration * _NANOSECONDS)
        ending = Ending(begun.gate, begun.clock, self.stop, end)
        ending.start()
        try:
            sequence = self._until(ending, round(settings.interval * _NANOSECONDS))
        finally:
            self.stop.set()
            ending.join()
        begun.close()
        for running in begun.running:
            running.sources.end(ending.moment)
            running.drain()
            running.end()
        self._stream()
        for running in begun.running:
            running.loaded.detach()
        self.chain.end(self._snapshots(ending.moment, sequence, final=True))

    def _until(self, ending: Ending, interval: int) -> int:
        """Takes snapshots until the end; how many moments had some."""
        clock, tick, sequence = self.begun.clock, self.begun.began + interval, 0
        while not ending.over.wait(min(_POLL_SECONDS, max(tick - clock.now(), 0) / _NANOSECONDS)):
            for running in self.begun.running:
                running.aggregate()
            self._stream()
            now = clock.now()
            if self.chain.gone:
                break
            if now >= tick:
                tick += (1 + (now - tick) // interval) * interval  # those that were slept through are not made up for
                for running in self.begun.running:
                    running.drain()
                if ending.over.is_set():  # the last snapshots are wanted now
                    break
                self._stream()
                for snapshot in self._snapshots(clock.now(), sequence, final=False):
                    self.chain.put(snapshot)
                sequence += 1
        return sequence

    def _stream(self) -> None:
        for running in self.begun.running:
            events = running.stream()
            if events is not None:
                self.chain.stream(events)

    def _snapshots(self, taken: int, sequence: int, final: bool) -> list[Snapshot]:
        """One of each probe; a probe that joins others' figures with its own comes after them."""
        beside: dict[str, Figures] = {}
        made = []
        clock = self.begun.clock
        for running in sorted(self.begun.running, key=lambda running: running.joins):
            figures = beside[running.name] = running.figures(beside)
            made.append(
                Snapshot(
                    probe=running.name,
                    started=clock.unix(self.begun.began),
                    taken=clock.unix(taken),
                    final=final,
                    kernel=self.kernel.release,
                    attached=running.loaded.attached,
                    figures=figures,
                    run=self.begun.run,
                    sequence=sequence,
                )
            )
        return made
