"""What the machine says, as batches."""

from __future__ import annotations

from ..model import Batch, HostSource


class HostReader:
    """Reads a host source."""

    def __init__(self, source: HostSource) -> None:
        self._source = source

    def read(self) -> Batch | None:
        """What there is now."""
        return Batch(self._source.name, self._source.read())

    def close(self) -> None:
        """Nothing is held."""
