"""The `[probe.latency]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, Seconds, option


@frozen
class LatencyConfig:
    """TCP latency."""

    attach: Literal["auto", "fentry", "kprobe", "tracepoint"] = option(
        "auto", help="how to attach the programs; auto takes the first way that works"
    )
    mode: Literal["aggregate", "events"] = option(
        "aggregate",
        help="aggregate counts in the kernel; events also streams every request and service",
    )
    main: Literal["request", "first_byte"] = option(
        "request",
        help="what the main figures of clients are of: whole responses, or, for streams, up to their first byte",
    )
    pickup: bool = option(
        False, help="also time how long a request waits at the server for the program; costs one more clock read"
    )
    slow: Seconds = option(
        Seconds(0.0), help="stream those requests and services that take so long, or longer; 0 streams none",
        allowed='from 0 to "60s"', check=lambda v: 0 <= v <= 60,
    )  # fmt: skip
    slow_share: float = option(
        0.0, help="stream the slowest exchanges, so large a share of all: what they take is found as the run goes on",
        allowed="from 0 to 0.5", check=lambda v: 0 <= v <= 0.5,
    )  # fmt: skip
    slow_rate: int = option(
        1000, help="slow ones that are streamed in a second; those beyond are counted as lost",
        allowed="from 1 to 1000000", check=lambda v: 1 <= v <= 1_000_000,
    )  # fmt: skip
    sample: float = option(
        1.0, help="share of exchanges to measure; the kernel decides for each one",
        allowed="above 0 and at most 1", check=lambda v: 0 < v <= 1,
    )  # fmt: skip
    outlier: Seconds = option(
        Seconds(60.0), help="an exchange that takes longer counts as an outlier and is in no other figure",
        allowed='above 0 and at most "60s"', check=lambda v: 0 < v <= 60,
    )  # fmt: skip
    max_connections: int = option(
        10240, help="connections to keep in the kernel; beyond that, the least recently used one is evicted",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    max_closed: int = option(
        30_000, help="closed connections to list; beyond that, the oldest are summed up in one row per side",
        allowed="from 0 to 10000000", check=lambda v: 0 <= v <= 10_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(4 << 20), help="with mode = \"events\": size of the ring buffer",
        allowed='a power of two from "4KiB" to "1GiB"', check=lambda v: 4096 <= v <= 1 << 30 and v & (v - 1) == 0,
    )  # fmt: skip
