"""The end of a run, asked for by a signal."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from typing import Any


class Stop:
    """A flag to wait for. Unlike `threading.Event` it takes no lock, so that a signal handler may set it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def set(self) -> None:
        """Asks for the end."""
        os.write(self._write, b"\0")

    def wait(self, seconds: float | None) -> bool:
        """Waits until the end is asked for, but not longer; whether it is.

        Args:
            seconds: How long; None: for ever.
        """
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))

    def at(self, numbers: Iterable[int]) -> None:
        """From here on these signals set it, and one that comes after ends the process at once.

        The interpreter calls a signal's handler in the main thread, between two of its steps, and a step over a hundred
        thousand rows takes a while. The flag is set by the interpreter's own handler, before that.
        """
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._second)

    def _second(self, number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
