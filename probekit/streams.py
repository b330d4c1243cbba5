"""The command's standard streams: they may be closed, full, read by nobody any more, or no terminal for colours."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, Any

_PLAIN = ("", "dumb", "unknown")


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
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    _replacing(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Forgiving(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True
        )


def _replacing(stream: Any) -> None:
    """What a terminal's encoding does not have is replaced."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


def settle() -> OSError | None:
    """Writes what standard output has in its buffer; why it cannot be written, after which nothing more is tried."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            sys.stdout.flush()
        return error
    return None


def coloured(stream: IO[str]) -> bool:
    """Whether colours and bold letters are wanted there: a terminal that can, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in _PLAIN
