"""A file, or whatever a path leads to, that lines are added to: whole ones, also after a failure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from . import files, streams
from .places import find


class LineFile:
    """Something that lines are added to.

    A file is opened for each call, so that one that was moved away is begun anew. A pipe stays open as long as somebody
    reads, who would take its end for the end of all.

    Args:
        path: The file; "-" for standard output.
        force: Also to what is another user's, and through links that other users made.
    """

    def __init__(self, path: str, force: bool = False) -> None:
        self._path = path
        self._force = force
        self._lines = streams.Lines()
        self._pipe: int | None = None

    def add(self, records: Sequence[str], what: str = "records") -> None:
        """Writes records, each with its line's end.

        Args:
            records: All of them.
            what: A word for them, to say how many were not written; where it is empty, that is not said.

        Raises:
            ExportError: They are not all written; the next call goes on behind the last whole one.
        """
        with files.told(self._path, len(records), what):
            encode = streams.for_output if self._path == "-" else str.encode
            encoded = [encode(record) for record in records]
            try:
                with self._target() as descriptor:
                    self._lines.add(descriptor, encoded)
            except streams.Unwritten as failure:
                if not isinstance(failure.__cause__, TimeoutError):
                    self.close()
                raise

    def close(self) -> None:
        """Closes what is open."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    @contextlib.contextmanager
    def _target(self) -> Iterator[int]:
        if self._path == "-":
            with streams.standard_output() as descriptor:
                yield descriptor
            return
        if self._pipe is None:
            with find(self._path, self._force) as found:
                if found.descriptor is not None:
                    yield found.descriptor
                    return
                if not found.special:
                    with files.closing(found.open(os.O_RDWR | os.O_APPEND)) as descriptor:
                        yield descriptor
                    return
                self._pipe = found.open(os.O_WRONLY)
        yield self._pipe
