"""The chain of exporters: each in a thread of its own, so that none holds up the measurement, the end, or another one.

A snapshot that cannot be exported is said at once, and the exporter is tried again with the next one. Who is so slow
that snapshots wait gets the newest ones. The last snapshots go to one exporter after the other, in the order of the
configuration, because several may write to standard output.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ExportError, ProbekitError
from ..model import Events, Exporter, Snapshot

OPENING_SECONDS = 5.0
"""An exporter that is not open by then is not waited for any longer; it may still be."""
STUCK_SECONDS = 10.0
"""An exporter that has taken no snapshot and done nothing at all for so long after the end is given up."""
LONGEST_SECONDS = 120.0
"""The same of one that does something all the time, but takes no snapshot."""
_WAITING = 4  # snapshots of one probe that wait for an exporter; of more, the oldest are left out
_WAITING_EVENTS = 200_000  # that wait for an exporter; of more, the oldest are left out
_SAY_SECONDS = 1.0
_LEAVE_SECONDS = 0.2

Failed = Callable[[ProbekitError], None]
"""Told of each failure when it happens, in whatever thread that is."""
Told = Callable[[str], None]
"""Told of what is worth a line and no failure."""


class Link(threading.Thread):
    """One exporter of the chain.

    Attributes:
        gone: Nobody is at the other end any more: trying again is of no use.

    Args:
        name: Its name, for messages.
        exporter: What it is.
        blaming: Around calls of it; what it raises comes out as an ExportError.
        failed: Told of its failures.
        told: Told that it is waited for.
    """

    def __init__(
        self, name: str, exporter: Exporter, blaming: Callable[[str], Any], failed: Failed, told: Told
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.gone = False
        self._exporter = exporter
        self._replaces = getattr(exporter, "replaces", False)
        self._blaming = blaming
        self._failed = failed
        self._told = told
        self._changed = threading.Condition()
        self._waiting: deque[Snapshot | Events] = deque()
        self._events = 0  # of those that wait
        self._opened: bool | None = None  # whether it was; None: it is still at it
        self._over = False
        self._done = 0
        self._left_out = 0

    def run(self) -> None:
        """Opens, takes snapshots until there are no more, closes."""
        opened = self._call("__enter__")
        with self._changed:
            self._opened = opened
            self._changed.notify_all()
        if not opened:
            return
        while (given := self._next()) is not None:
            self._call("stream" if isinstance(given, Events) else "export", given)
            with self._changed:
                self._done += 1
                self._changed.notify_all()
        self._call("__exit__", None, None, None)

    def is_open(self, seconds: float) -> bool:
        """Whether it is open, or may be in a while; False where it failed to.

        Args:
            seconds: How long to wait.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._opened is not None, seconds):
                self._say("is not open yet: the run goes on without it until it is")
            return self._opened is not False

    def put(self, snapshot: Snapshot) -> None:
        """Gives it a snapshot; returns at once."""
        with self._changed:
            mine = [each for each in self._waiting if isinstance(each, Snapshot) and each.probe == snapshot.probe]
            if self._replaces:
                for waiting in mine:
                    self._waiting.remove(waiting)
            elif len(mine) >= _WAITING and not snapshot.final:
                self._waiting.remove(mine[0])
                self._left_out += 1
            self._waiting.append(snapshot)
            self._changed.notify_all()

    def stream(self, events: Events) -> None:
        """Gives it events, if it takes any; returns at once."""
        if not hasattr(self._exporter, "stream"):
            return
        with self._changed:
            while self._events > _WAITING_EVENTS:
                oldest = next(each for each in self._waiting if isinstance(each, Events))
                self._waiting.remove(oldest)
                self._events -= len(oldest.table.key)
                self._say(f"does not keep up: {len(oldest.table.key)} events of {oldest.probe} were left out")
            self._waiting.append(events)
            self._events += len(events.table.key)
            self._changed.notify_all()

    def end(self) -> None:
        """Waits until it has taken everything and is closed; gives it up where it gets no further."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        began, said = time.monotonic(), False
        done, worked, taken, since = -1, -1, began, began
        while self.is_alive():
            now = time.monotonic()
            if done != self._done:
                done, taken = self._done, now
            if worked != (at := self._worked()):
                worked, since = at, now
            if now - since > STUCK_SECONDS or now - taken > LONGEST_SECONDS:
                self._say(f"has taken nothing for {now - taken:.0f} s and is given up: its last snapshot is missing")
                return
            if now - began > _SAY_SECONDS and not said:
                said = True
                self._told(f"waiting for {self.name} ...")
            self.join(0.05)
        if self._left_out:
            self._told(f"{self.name} did not keep up: {self._left_out} snapshots were left out")

    def _worked(self) -> int:
        """How long it was on a CPU, ns, by the kernel's schedstat: on a slow machine a snapshot may take long."""
        try:
            return int(Path(f"/proc/self/task/{self.native_id}/schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return 0

    def leave(self) -> None:
        """It need not take anything any more, and is not waited for."""
        with self._changed:
            self._over = True
            self._waiting.clear()
            self._events = 0
            self._changed.notify_all()
        if self.is_alive():
            self.join(_LEAVE_SECONDS)

    def _next(self) -> Snapshot | Events | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            given = self._waiting.popleft() if self._waiting else None
            if isinstance(given, Events):
                self._events -= len(given.table.key)
            return given

    def _call(self, method: str, *arguments: Any) -> bool:
        try:
            with self._blaming(method):
                getattr(self._exporter, method)(*arguments)
        except ProbekitError as error:
            self.gone = self.gone or isinstance(error.__cause__, BrokenPipeError)
            self._failed(error)
            return False
        return True

    def _say(self, words: str) -> None:
        self._failed(ExportError(f"{self.name} {words}"))


class Watching:
    """Somebody who looks at what comes in mid-run, as an exporter: a terminal may be as slow as any file."""

    def __init__(self, look: Callable[[Snapshot], None]) -> None:
        self._look = look

    def __enter__(self) -> Watching:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def export(self, snapshot: Snapshot) -> None:
        """Shows it; that it cannot be shown is no failure."""
        with contextlib.suppress(OSError):
            self._look(snapshot)


class Chain:
    """All exporters of a run.

    Args:
        links: In the order of the configuration.
        look: Called with every snapshot but the last ones, in a thread of its own.
    """

    def __init__(self, links: list[Link], look: Callable[[Snapshot], None]) -> None:
        self._links = links
        self._watching = Link("progress", Watching(look), lambda _: contextlib.nullcontext(), _ignore, _ignore)

    def open(self) -> bool:
        """Opens all; whether there is one that is open or may be."""
        for link in (*self._links, self._watching):
            link.start()
        by = time.monotonic() + OPENING_SECONDS
        self._links = [link for link in self._links if link.is_open(max(0.0, by - time.monotonic()))]
        return bool(self._links)

    @property
    def gone(self) -> bool:
        """Nobody is left to export to."""
        return all(link.gone for link in self._links)

    def put(self, snapshot: Snapshot) -> None:
        """Gives every exporter a snapshot that is not the last one; returns at once."""
        for link in (*self._links, self._watching):
            link.put(snapshot)

    def stream(self, events: Events) -> None:
        """Gives events to every exporter that takes some; returns at once."""
        for link in self._links:
            link.stream(events)

    def end(self, last: list[Snapshot]) -> None:
        """Gives the last snapshots to one exporter after the other, and closes it. Only the first call does."""
        for link in self._links:
            for snapshot in last:
                link.put(snapshot)
            link.end()
        self._links = []
        self._watching.leave()


def _ignore(_: object) -> None:
    """Nothing to tell."""
