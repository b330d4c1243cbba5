"""The `[probe.latency]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, Seconds, option


@frozen
class LatencyConfig:
    """TCP latency."""

    attach: Literal["auto", "fentry", "kprobe", "tracepoint"] = option(
        "auto", help="how programs are attached; auto takes the first way that works"
    )
    mode: Literal["aggregate", "events"] = option(
        "aggregate", help="aggregate counts in the kernel; events streams every request and service to the exporters"
    )
    pickup: bool = option(
        False, help="also time what a server's request waits for the program; costs one more reading of the clock"
    )
    sample: float = option(
        1.0, help="share of the exchanges that are measured, decided in the kernel for each",
        allowed="above 0 and at most 1", check=lambda v: 0 < v <= 1,
    )  # fmt: skip
    outlier: Seconds = option(
        Seconds(60.0), help="what takes longer is counted as an outlier and measured no further",
        allowed='above 0 and at most "60s"', check=lambda v: 0 < v <= 60,
    )  # fmt: skip
    max_connections: int = option(
        10240, help="connections kept in the kernel; beyond, the one used longest ago leaves and is counted",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    max_closed: int = option(
        100_000, help="closed connections listed in the output; beyond, the oldest are added up in one row a side",
        allowed="from 0 to 10000000", check=lambda v: 0 <= v <= 10_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(4 << 20), help="size of the events' ring buffer, used with mode = \"events\"",
        allowed='a power of two from "4KiB" to "1GiB"', check=lambda v: 4096 <= v <= 1 << 30 and v & (v - 1) == 0,
    )  # fmt: skip
