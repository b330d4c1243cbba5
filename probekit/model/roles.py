"""What plugins hand back: the objects that do the work of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, runtime_checkable

from .batch import Batch, Columns
from .figures import Figures, Snapshot, Table


class Aggregator(Protocol):
    """Turns columns into figures. One for each probe and run."""

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""

    def snapshot(self) -> Figures:
        """The figures as they are now."""


@runtime_checkable
class Joiner(Protocol):
    """An aggregator that makes more of its figures where other probes run beside it."""

    def join(self, beside: Mapping[str, Figures]) -> None:
        """Takes the figures of the run's other probes, by name, before each snapshot; those that join are not there."""


@runtime_checkable
class Streamer(Protocol):
    """An aggregator that hands on events one by one, at least four times a second."""

    def stream(self) -> Table | None:
        """A row for each event since the last call; None where the run wants none."""


@runtime_checkable
class Ender(Protocol):
    """An aggregator that has to know when a run is over."""

    def end(self) -> None:
        """Nothing comes any more: all that the sources had was taken, and the last snapshot is about to be."""


class Exporter(Protocol):
    """Takes snapshots somewhere. Entered before the probes are attached, left after the last snapshot.

    All of it is called in a thread of its own. An exporter that has an attribute `replaces`, which is True, puts each
    snapshot of a probe in place of the one before: one that still waits when the next one comes is left out.
    One that has a method `stream` gets the `Events` of probes that stream some, in the order of the snapshots.
    """

    def __enter__(self) -> Exporter:
        """Opens what it writes to."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes it."""

    def export(self, snapshot: Snapshot) -> None:
        """Takes one snapshot of one probe; after an ExportError it is called again with the next one."""


Decoder = Callable[[Batch], Columns]
