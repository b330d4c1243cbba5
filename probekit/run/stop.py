"""The end of a run, asked for by a signal."""

from __future__ import annotations

import os
import select


class Stop:
    """A flag to wait for. Unlike `threading.Event` it takes no lock, so that a signal handler may set it."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def set(self) -> None:
        """Asks for the end."""
        os.eventfd_write(self._fd, 1)

    def wait(self, seconds: float | None) -> bool:
        """Waits until the end is asked for, but not longer; whether it is.

        Args:
            seconds: How long; None: for ever.
        """
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))
