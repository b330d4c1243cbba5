"""The `[probe.conntrack]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, option


@frozen
class ConntrackConfig:
    """The life of TCP connections."""

    attach: Literal["auto", "fentry", "kprobe", "tracepoint"] = option(
        "auto", help="how accepts are observed; auto takes the first way that works"
    )
    accept: bool = option(
        True, help="time what connections wait to be accepted; without fentry and kprobes it costs every system call "
        "of the machine a little",
    )  # fmt: skip
    netns: str = option(
        "", help="only this network namespace: its name, or a path such as /proc/PID/ns/net; left out: all of them",
        example='"blue"',
    )  # fmt: skip
    max_connections: int = option(
        65536, help="sockets followed at once; what is opened beyond is not followed, and counted",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    max_closed: int = option(
        100_000, help="closed connections listed in the output; the oldest beyond are in sums only",
        allowed="from 0 to 10000000", check=lambda v: 0 <= v <= 10_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(4 << 20), help="size of the ring buffer that closed connections come through",
        allowed='a power of two from "64KiB" to "1GiB"', check=lambda v: 65536 <= v <= 1 << 30 and v & (v - 1) == 0,
    )  # fmt: skip
