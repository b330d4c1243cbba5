"""Which run this is, so that its files can be told from those of others and put together with them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from ..machine import outside
from ..model import Run
from .clock import Clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identify(clock: Clock, began: int) -> Run:
    """A run that begins.

    Args:
        clock: The programs'.
        began: When they began to count, ns of that clock.
    """
    try:
        boot = outside.read(_BOOT_ID).strip()
    except OSError:
        boot = ""
    host = outside.text(socket.gethostname())
    return Run(os.urandom(16).hex(), host, boot, began, round(clock.wall * 1e9) + began - clock.anchor)
