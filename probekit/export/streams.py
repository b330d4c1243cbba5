"""Writing to descriptors: whole records, and never for ever.

Whoever reads a pipe, a terminal or a socket may stop reading; a disk may be full. Neither may hold up an exporter, and
what follows has to begin where a record ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

from ..errors import ExportError

PATIENCE_SECONDS = 5.0
"""So long a reader may take nothing at all."""

_PIECE = select.PIPE_BUF  # what poll() says is writable takes this much without blocking
_BATCH = 1 << 20
_RETRY_SECONDS = 0.01

_output = threading.Lock()  # exporters in threads of their own share standard output, and it takes whole texts


class Unwritten(Exception):  # noqa: N818
    """Not all records were written; `__cause__` is the OSError that says why.

    Attributes:
        records: How many were not.
        rest: What is missing of the first of them, where its beginning is on the way to somebody who may read on.
    """

    def __init__(self, records: int, rest: bytes) -> None:
        super().__init__(records)
        self.records = records
        self.rest = rest


def add(descriptor: int, records: Sequence[bytes]) -> None:
    """Writes records; what is a file ends with a whole one, whatever happens.

    Raises:
        Unwritten: The disk is full, nobody reads, and so on.
    """
    status = os.fstat(descriptor)
    left = len(records)
    end = status.st_size
    with _not_blocking(descriptor) as target:
        for batch in _batches(records):
            written, failure = _put(target, b"".join(batch), stat.S_ISREG(status.st_mode))
            if failure is None:
                left -= len(batch)
                end += written
                continue
            torn = written
            for record in batch:
                if torn < len(record):
                    break
                torn -= len(record)
                left -= 1
            if stat.S_ISREG(status.st_mode):
                _cut(descriptor, end + written, torn)
            rest = record[torn:] if torn and isinstance(failure, TimeoutError) else b""
            raise Unwritten(left, rest) from failure


class Lines:
    """Records that are added again and again, each on a line of its own."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, descriptor: int, records: Sequence[bytes]) -> None:
        """Writes records, after what is missing of the last one, or on a fresh line.

        Raises:
            Unwritten: As `streams.add`; the next call goes on where this one stopped.
        """
        first = self._rest or (b"\n" if _torn(descriptor) else b"")
        try:
            add(descriptor, [first, *records] if first else records)
        except Unwritten as failure:
            if failure.records <= len(records):
                self._rest = failure.rest
                raise
            self._rest = failure.rest or self._rest  # not even what was missing, which is no record of this call
            raise Unwritten(len(records), b"") from failure.__cause__
        self._rest = b""


@contextlib.contextmanager
def standard_output() -> Iterator[int]:
    """A descriptor for standard output, for one writer at a time.

    Raises:
        ExportError: It is closed.
        OSError: It cannot be written, or another exporter still waits for its reader.
    """
    out = open_output()
    if not _output.acquire(timeout=2 * PATIENCE_SECONDS):
        raise _nobody_reads()
    try:
        out.flush()
        try:
            descriptor = out.fileno()
        except io.UnsupportedOperation:  # whoever runs probekit within a program of their own collects what it prints
            with tempfile.TemporaryFile() as collected:
                yield collected.fileno()
                collected.seek(0)
                out.write(collected.read().decode(out.encoding or "utf-8"))
                out.flush()
        else:
            yield descriptor
    finally:
        _output.release()


def open_output() -> TextIO:
    """Standard output, as Python has it.

    Raises:
        ExportError: It is closed.
    """
    out: TextIO | None = sys.stdout
    if out is None or out.closed or (_has_descriptor(out) and not is_writable(out.fileno())):
        raise ExportError("standard output is closed")
    return out


def is_writable(descriptor: int) -> bool:
    """Whether a descriptor is open for writing. That of a closed standard output is kept by one that is not."""
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _has_descriptor(out: TextIO) -> bool:
    try:
        out.fileno()
    except io.UnsupportedOperation:
        return False
    return True


def for_output(text: str) -> bytes:
    """A text in the encoding of standard output; what that does not have becomes a question mark."""
    return text.encode(open_output().encoding or "utf-8", errors="replace")


def _batches(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _put(descriptor: int, data: bytes, regular: bool) -> tuple[int, OSError | None]:
    """How many bytes were written, and what stopped it."""
    view = memoryview(data)
    piece = len(data) if regular else _PIECE
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    patience = time.monotonic() + PATIENCE_SECONDS
    done = 0
    try:
        while done < len(data):
            if not regular and not poll.poll(1000 * max(0.0, patience - time.monotonic())):
                return done, _nobody_reads()
            try:
                done += os.write(descriptor, view[done : done + piece])
                patience = time.monotonic() + PATIENCE_SECONDS
            except BlockingIOError:  # writable, but not for the next character: a terminal makes two of a line's end
                if time.monotonic() > patience:
                    return done, _nobody_reads()
                time.sleep(_RETRY_SECONDS)
    except OSError as error:
        return done, error
    return done, None


def _nobody_reads() -> OSError:
    return TimeoutError(f"nobody has read from it for {PATIENCE_SECONDS:g} s")


@contextlib.contextmanager
def _not_blocking(descriptor: int) -> Iterator[int]:
    """The same terminal by a descriptor that does not block; other descriptors do not either, piece by piece."""
    if not os.isatty(descriptor) or not os.get_blocking(descriptor):
        yield descriptor
        return
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's terminal: what one may write to need not be one's to open
        yield descriptor
        return
    try:
        yield own
    finally:
        os.close(own)


def _cut(descriptor: int, end: int, torn: int) -> None:
    """Takes back the last bytes of a file, unless somebody else has added to it since."""
    with contextlib.suppress(OSError):  # then the next record begins on a fresh line
        if torn and os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - torn)
            os.lseek(descriptor, end - torn, os.SEEK_SET)


def _torn(descriptor: int) -> bool:
    """Whether a file ends within a line, as one does whose writer was killed."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        return os.pread(descriptor, 1, status.st_size - 1) != b"\n"
    except OSError:  # it is open for writing only
        return False
