"""The command's standard streams: they may be closed, full, read by nobody any more, or no terminal for colours."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PLAIN = ("", "dumb", "unknown")


class OutputError(OSError):
    """Standard output cannot be written."""


class _Output(io.BufferedWriter):
    """What is under standard output: its errors can be told from those of other files.

    Attributes:
        fault: The last one.
    """

    fault: OutputError | None = None

    def write(self, data: Buffer) -> int:
        """Writes.

        Raises:
            OutputError: It cannot be.
        """
        try:
            return super().write(data)
        except OSError as error:
            self.fault = OutputError(error.errno, error.strerror)
            raise self.fault from error

    def flush(self) -> None:
        """Writes what is in the buffer.

        Raises:
            OutputError: It cannot be.
        """
        try:
            super().flush()
        except OSError as error:
            self.fault = OutputError(error.errno, error.strerror)
            raise self.fault from error


class _Forgiving(io.TextIOWrapper):
    """A stream for messages: one that cannot be written costs the message, never the run."""

    def write(self, text: str) -> int:
        """Writes, or not."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is in the buffer, or not."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Makes the standard streams fit for a command, once and first of all.

    One that is closed becomes the null device, so that nothing else gets its number: standard output for reading only,
    so that who writes there learns that it cannot be.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  (open as long as the process)
    terminal = sys.stdout is not None and sys.stdout.isatty()
    sys.stdout = io.TextIOWrapper(
        _Output(io.FileIO(1, "w", closefd=False)),
        encoding=sys.stdout.encoding if sys.stdout is not None else None,
        errors="replace",  # what the terminal's encoding does not have
        line_buffering=terminal,
    )
    messages = sys.stderr.buffer if sys.stderr is not None else open(2, "wb", closefd=False)  # noqa: SIM115
    encoding = sys.stderr.encoding if sys.stderr is not None else None
    sys.stderr = _Forgiving(messages, encoding=encoding, errors="backslashreplace", line_buffering=True)


def fault() -> OSError | None:
    """Why standard output could not be written, where it was tried."""
    return getattr(getattr(sys.stdout, "buffer", None), "fault", None)


def settle() -> OSError | None:
    """Writes what standard output has in its buffer; why it cannot be written, after which nothing more is tried."""
    try:
        sys.stdout.flush()
    except OSError as error:
        quieten()
        return error
    return None


def quieten() -> None:
    """Nothing more is to be written to standard output: what is still in its buffer has nowhere to go."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def coloured(stream: IO[str]) -> bool:
    """Whether colours and bold letters are wanted there: a terminal that can, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in _PLAIN
