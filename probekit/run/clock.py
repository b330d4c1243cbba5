"""The clock that programs in the kernel read, as this process can read it.

`bpf_ktime_get_ns` is CLOCK_MONOTONIC of the initial time namespace. A process in another time namespace (some container
runtimes make one) has an offset to it, which no file tells for certain: so a program is asked.
"""

from __future__ import annotations

import os
import struct
import time

from attrs import frozen

from ..machine import bpf
from ..machine.map_types import MapType

_ROUNDS = 5
_KTIME_GET_NS = 5  # enum bpf_func_id
_PACKET = 64  # bytes: a test run of a socket filter wants at least an Ethernet header


@frozen
class Clock:
    """CLOCK_MONOTONIC of the programs, with one anchor to the wall clock, which may be set while a run is on.

    Attributes:
        offset: What is added to this process's CLOCK_MONOTONIC, ns.
        anchor: A moment, ns of the programs' clock.
        wall: The same moment, Unix seconds.
    """

    offset: int
    anchor: int
    wall: float

    def now(self) -> int:
        """The time, ns."""
        return time.monotonic_ns() + self.offset

    def unix(self, moment: int) -> float:
        """A moment of this clock in Unix seconds, as the wall clock was when the run was put together."""
        return self.wall + (moment - self.anchor) / 1e9


def detect() -> Clock:
    """The programs' clock, asked for by running a program.

    Raises:
        OSError: The kernel does not run it.
    """
    offset = _offset()
    return Clock(offset, time.monotonic_ns() + offset, time.time())


def _offset() -> int:
    """The difference of the two clocks, from the reading that took the shortest time; 0 where they are the same."""
    value = bpf.create_map(MapType.ARRAY, "probekit_clock", 4, 8, 1, 0)
    try:
        program = bpf.load_filter("probekit_clock", _reading(value))
        try:
            readings = []
            for _ in range(_ROUNDS):
                before = time.monotonic_ns()
                bpf.test_run(program, bytes(_PACKET))
                after = time.monotonic_ns()
                (there,) = struct.unpack("=Q", bpf.lookup(value, bytes(4), 8))
                readings.append((after - before, there - (before + after) // 2))
        finally:
            os.close(program)
    finally:
        os.close(value)
    took, difference = min(readings)
    return difference if abs(difference) > took else 0


def _reading(value: int) -> bytes:
    """Instructions that put the time into the map's only value."""
    return b"".join((
        struct.pack("=BBhi", 0x85, 0, 0, _KTIME_GET_NS),  # r0 = bpf_ktime_get_ns()
        bpf.value_address(1, value),
        struct.pack("=BBhi", 0x7B, 0x01, 0, 0),  # *(u64 *)r1 = r0
        struct.pack("=BBhi", 0xB7, 0, 0, 0),  # r0 = 0
        struct.pack("=BBhi", 0x95, 0, 0, 0),  # exit
    ))  # fmt: skip


__all__ = ["Clock", "detect"]
