"""What plugins hand back: the objects that do the work of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, runtime_checkable

from .batch import Batch, Columns
from .figures import Figures, Snapshot


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


class Exporter(Protocol):
    """Takes snapshots somewhere. Entered before the probes are attached, left after the last snapshot.

    All of it is called in a thread of its own. An exporter that has an attribute `replaces`, which is True, puts each
    snapshot of a probe in place of the one before: one that still waits when the next one comes is left out.
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
