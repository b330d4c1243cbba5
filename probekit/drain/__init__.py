"""Maps to batches. Stage 6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import LoadError
from ..model import Batch, LiveMap, Source, SourceKind
from .maps import HashReader, PerCpuReader, TableReader
from .ring import RingReader


class Reader(Protocol):
    """Reads one source."""

    def read(self) -> Batch | None:
        """What is there now; of a ring buffer, what came since; None where that is nothing."""

    def close(self) -> None:
        """Lets go of what it mapped."""


_READERS: dict[SourceKind, Callable[[Source, LiveMap, int], Reader]] = {
    SourceKind.RING: RingReader,
    SourceKind.TABLE: TableReader,
    SourceKind.PERCPU: PerCpuReader,
    SourceKind.HASH: HashReader,
}


def open_reader(source: Source, live: LiveMap, cpus: int) -> Reader:
    """The reader of a source.

    Args:
        source: What it is.
        live: The map behind it.
        cpus: Possible CPUs.

    Raises:
        LoadError: The map is not what the source is read as, or the kernel does not let it be read.
    """
    try:
        return _READERS[source.kind](source, live, cpus)
    except OSError as error:
        raise LoadError(f"the map {source.map} cannot be read: {error.strerror}") from error


__all__ = ["Reader", "RingReader", "open_reader"]
