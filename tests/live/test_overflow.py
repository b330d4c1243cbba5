from __future__ import annotations

from collections.abc import Callable

from .conftest import Probe, benchmark

REQUESTS = 50_000


def port(end: str) -> str:
    return end.rpartition(":")[2]


def test_what_was_produced_is_what_was_delivered_and_what_was_lost(
    probe: Callable[..., Probe], redis: tuple[int, int]
) -> None:
    running = probe("latency", "--set", "probe.latency.mode=events", "--set", "probe.latency.buffer=4KiB")
    benchmark(redis[0], "127.0.0.1", REQUESTS, clients=20)
    result = running.result()
    lost = result["lost"]["events_ring_full"]
    delivered = sum(result["event_type_breakdown"].values())
    assert lost > 0, "the load did not overflow the ring buffer"
    assert result["produced"] == delivered + lost
    to_redis = [r for r in result["connections"].values() if r["destination"] == f"127.0.0.1:{redis[0]}"]
    assert sum(r["events"] for r in to_redis) >= REQUESTS
    in_rows = sum(r["events"] for r in result["connections"].values())
    assert in_rows <= result["produced"]
    assert result["lost"]["connections_ring_full"] or in_rows == result["produced"]  # others' records may fill that one


def test_nothing_is_lost_with_the_default_buffer(probe: Callable[..., Probe], redis: tuple[int, int]) -> None:
    running = probe("latency", "--set", "probe.latency.mode=events")
    benchmark(redis[0], "127.0.0.1", REQUESTS, clients=20)
    result = running.result()
    lost = result["lost"]["events_ring_full"]
    assert result["produced"] == sum(result["event_type_breakdown"].values()) + lost >= 2 * REQUESTS
    ours = [r for r in result["connections"].values() if str(redis[0]) in (port(r["source"]), port(r["destination"]))]
    others = result["produced"] - sum(r["events"] for r in ours)
    assert lost <= others  # nothing, where nobody else uses the machine
