"""The gate: a word that every program of a run looks at before anything else.

It opens when all programs of all probes are attached, and closes before any is detached. What counts thus begins and
ends at one moment, whatever the order of attaching; and because nothing is produced any more, the end of a run can read
what is there once and be done, at any load.

The core puts the look in front of a program's own instructions, so that no probe has a line for it: an address that the
loader fills in, a load and a branch, 3 instructions and no call.
"""

from __future__ import annotations

import os
import struct
from types import TracebackType

from ..machine import bpf
from ..machine.map_types import MapType

LENGTH = 6
"""Instructions that are put in front of a program."""


class Gate:
    """Closed when it is made; a context manager that frees it."""

    def __init__(self) -> None:
        self._fd = -1

    def __enter__(self) -> Gate:
        """Makes the word.

        Raises:
            OSError: The kernel refuses.
        """
        self._fd = bpf.create_map(MapType.ARRAY, "probekit_gate", 4, 8, 1, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees it; the programs hold it as long as they live."""
        os.close(self._fd)

    def open(self) -> None:
        """From here on programs count."""
        bpf.update(self._fd, bytes(4), struct.pack("=Q", 1))

    def close(self) -> None:
        """From here on they do not; those that are under way end what they are at."""
        bpf.update(self._fd, bytes(4), bytes(8))

    def guarded(self, code: bytes, passes: int) -> bytes:
        """A program's instructions with the look in front of them.

        Args:
            code: Its own instructions.
            passes: What it returns while the gate is closed.
        """
        return b"".join((
            bpf.value_address(0, self._fd),
            struct.pack("=BBhi", 0x79, 0x00, 0, 0),  # r0 = *(u64 *)r0
            struct.pack("=BBhi", 0x55, 0, 2, 0),  # if r0 != 0 goto +2
            struct.pack("=BBhi", 0xB7, 0, 0, passes),  # r0 = ...
            struct.pack("=BBhi", 0x95, 0, 0, 0),  # exit
            code,
        ))  # fmt: skip
