"""Requests and services against the clocks of the programs themselves.

Both ends are on this machine and read the clock that the kernel's programs read, so that nothing has to be tolerated:
what the probe measures begins and ends within what the client measures, and around what the server measures.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from .conftest import LiveProbe, Pair, live
from .objects import EVENTS

DELAY = 0.005
ROUNDS = 30


@pytest.fixture
def events(way: str) -> Iterator[LiveProbe]:
    """A probe that streams events."""
    with live(way, **EVENTS) as attached:
        yield attached


def test_requests_and_services_lie_within_the_programs_own_times(events: LiveProbe) -> None:
    ends = Pair(events)
    held = []

    def serve() -> None:
        for _ in range(ROUNDS):
            ends.server.recv(9)
            began = time.monotonic_ns()
            time.sleep(DELAY)
            held.append((began, time.monotonic_ns()))
            ends.server.send(b"!")

    server = threading.Thread(target=serve)
    server.start()
    own, seen = [], []
    for _ in range(ROUNDS):
        began = time.monotonic_ns()
        ends.client.send(b"?")
        ends.client.recv(9)
        own.append((began, time.monotonic_ns()))
        seen += events.events()
    server.join(20)
    row = ends.row("client")
    ends.close()  # which ends the last exchange
    seen += events.events()
    mine = [e for e in seen if f":{ends.port}" in e["source"] + e["destination"]]
    requests = [e for e in mine if e["type"] == "request"]
    services = [e for e in mine if e["type"] == "service"]
    assert len(requests) == len(services) == ROUNDS
    for request, service, outer, inner in zip(requests, services, own, held, strict=True):
        began, ended = (round(request["time_ns"] - request["latency_us"] * 1000), request["time_ns"])
        handed, answered = (round(service["time_ns"] - service["latency_us"] * 1000), service["time_ns"])
        assert outer[0] <= began <= handed <= inner[0] < inner[1] <= answered <= ended <= outer[1]
        assert request["wakeup_us"] * 1000 <= ended - answered
    errors = [(o[1] - o[0]) / 1000 - r["latency_us"] for o, r in zip(own, requests, strict=True)]
    assert row["avg_latency_us"] == pytest.approx(statistics.fmean(r["latency_us"] for r in requests), abs=0.01)
    assert row["min_latency_us"] == min(round(r["latency_us"], 3) for r in requests)
    assert row["max_latency_us"] == max(round(r["latency_us"], 3) for r in requests)
    latency = statistics.median(r["latency_us"] for r in requests)
    print(f"error against the client's own clock: median {statistics.median(errors):.1f} us of {latency:,.0f} us")
