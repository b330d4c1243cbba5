"""The `[probe.conntrack]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, option


@frozen
class ConntrackConfig:
    """The life of TCP connections."""

    attach: Literal["auto", "fentry", "kprobe", "tracepoint"] = option(
        "auto", help="how to observe accepts; auto takes the first way that works"
    )
    accept: bool = option(
        True, help="time how long connections wait to be accepted; without fentry and kprobes this slows every "
        "system call of the machine a little",
    )  # fmt: skip
    netns: str = option(
        "", help="follow only this network namespace, by name or by a path such as /proc/PID/ns/net; if not set, all",
        example='"blue"',
    )  # fmt: skip
    max_connections: int = option(
        65536, help="sockets to follow at once; those opened beyond that are counted but not followed",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    max_closed: int = option(
        30_000, help="closed connections to list; beyond that, the oldest are in the sums only",
        allowed="from 0 to 10000000", check=lambda v: 0 <= v <= 10_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(4 << 20), help="size of the ring buffer for closed connections",
        allowed='a power of two from "64KiB" to "1GiB"', check=lambda v: 65536 <= v <= 1 << 30 and v & (v - 1) == 0,
    )  # fmt: skip
