"""What the caller waited, to the last byte, against the caller's own clock.

PROBEKIT_TIMES=2000 makes as many requests in each case.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from .conftest import Probe

TIMES = int(os.environ.get("PROBEKIT_TIMES", "200"))
DELAY = 0.002
ASK = b"?" * 50
DELAYED_ACK = 0.035  # the least that one takes
MANY = 1000
SLACK_US = 15.0  # of Python and system calls around what the probe sees


@frozen
class Case:
    """How a server answers.

    Attributes:
        sends: The parts of a response, bytes.
        apart: Seconds between two parts.
        nodelay: With TCP_NODELAY.
        fresh: A connection for each request.
    """

    sends: tuple[int, ...]
    apart: float = 0
    nodelay: bool = True
    fresh: bool = False

    @property
    def size(self) -> int:
        return sum(self.sends)


CASES = {
    "one send": Case((200,), nodelay=False),
    "one send, nodelay": Case((200,)),
    "two sends": Case((100, 100), nodelay=False),
    "two sends, nodelay": Case((100, 100)),
    "chunks": Case((100, 4000, 4000, 4000), apart=0.001),
    "1 MB": Case((100, 1 << 20)),
    "1 MB at once": Case((1 << 20,), nodelay=False),
    "new connections": Case((200,), fresh=True),
    "new connections, two sends": Case((100, 100), fresh=True),
}


@contextmanager
def serving(case: Case) -> Iterator[tuple[str, int]]:
    """A server's address."""

    def answer(connection: socket.socket) -> None:
        with connection:
            if case.nodelay:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(1000):
                time.sleep(DELAY)
                for number, size in enumerate(case.sends):
                    if number and case.apart:
                        time.sleep(case.apart)
                    connection.sendall(b"x" * size)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


def ask(client: socket.socket, size: int) -> tuple[float, float]:
    """One request: microseconds to the first byte of its response, and to the last."""
    began = time.perf_counter_ns()
    client.sendall(ASK)
    size -= len(client.recv(1 << 16))
    first = time.perf_counter_ns()
    last = first
    while size:
        size -= len(client.recv(1 << 16))
        last = time.perf_counter_ns()
    return (first - began) / 1000, (last - began) / 1000


def client_of(case: Case, address: tuple[str, int], times: int) -> list[tuple[float, float]]:
    """What a client measures itself, of each request."""
    if case.fresh:
        own = []
        for _ in range(times):
            with socket.create_connection(address) as client:
                own.append(ask(client, case.size))
        return own
    with socket.create_connection(address) as client:
        return [ask(client, case.size) for _ in range(times)]


def percentile(values: list[float], percent: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(percent * 10) - 1]


def assert_alike(what: str, seen: list[float], own: list[float]) -> None:
    """To within 2 %, and what a client's own clock is late by.

    Of few requests the half of the fastest is looked at: a client that others keep off the CPU looks at its clock late.
    """
    pairs = {"mean": (statistics.fmean(seen), statistics.fmean(own))}
    pairs |= {f"p{percent}": (percentile(seen, percent), percentile(own, percent)) for percent in (50, 90, 99)}
    if len(own) < MANY:
        half = len(own) // 2
        pairs = {"mean of half": (statistics.fmean(sorted(seen)[:half]), statistics.fmean(sorted(own)[:half]))}
    for name, (found, expected) in pairs.items():
        print(f"{what} {name}: {found:,.1f} us, the client {expected:,.1f} us: {found / expected - 1:+.2%}")
        assert found == pytest.approx(expected, rel=0.02, abs=SLACK_US), (what, name)


def events_of(path: Path, address: tuple[str, int]) -> list[dict[str, Any]]:
    """The requests that a server was asked, as they streamed."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    destination = "{}:{}".format(*address)
    return [e for e in lines if e["record"] == "event" and e.get("destination") == destination]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CASES)
def test_a_request_takes_as_long_as_its_caller_waited_for_the_last_byte(
    probe: Callable[..., Probe], tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    times = max(TIMES // 10, 20) if not case.nodelay and len(case.sends) > 1 and TIMES == 200 else TIMES
    stream = tmp_path / "events.jsonl"
    running = probe("latency", "--set", "probe.latency.mode=events", "--export", f"jsonl:{stream}")
    with serving(case) as address:
        own = client_of(case, address, times)
        result = running.result()
    seen = events_of(stream, address)
    assert len(seen) == times
    for event in seen:  # in ns, all of it
        parts = [round(event[part] * 1000) for part in ("wire_us", "wakeup_us", "transfer_us")]
        assert sum(parts) == round(event["latency_us"] * 1000)
        assert parts[0] + parts[1] == round(event["first_byte_us"] * 1000)
    for (first, last), event in zip(own, seen, strict=True):
        assert event["first_byte_us"] <= first
        assert event["latency_us"] <= last
    assert_alike("first byte", [e["first_byte_us"] for e in seen], [first for first, _ in own])
    assert_alike("request", [e["latency_us"] for e in seen], [last for _, last in own])
    if result["lost"]["connections_ring_full"]:  # others closed more connections than the ring holds
        return
    rows = [r for r in result["connections"].values() if r["destination"] == "{}:{}".format(*address)]
    assert sum(row["events"] for row in rows) == times
    whole = sum(row["avg_latency_us"] * row["events"] for row in rows) / times
    assert whole == pytest.approx(statistics.fmean(e["latency_us"] for e in seen), abs=0.01)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["one send", "two sends", "1 MB", "new connections, two sends"])
def test_figures_that_the_kernel_counts_are_those_of_whole_responses(probe: Callable[..., Probe], name: str) -> None:
    """The run ends while the last response's connection is idle: it is no less than the others."""
    case = CASES[name]
    times = max(TIMES // 10, 20)
    running = probe("latency")
    with serving(case) as address, socket.create_connection(address) as client:
        own = [ask(client, case.size) for _ in range(times)]
        result = running.result()
    (row,) = [r for r in result["connections"].values() if r["destination"] == "{}:{}".format(*address)]
    assert row["events"] == times
    firsts, lasts = [first for first, _ in own], [last for _, last in own]
    for whole, mine in (("latency", lasts), ("first_byte", firsts)):
        half = statistics.fmean(sorted(mine)[: times // 2])
        assert 0.98 * half - SLACK_US <= row[f"avg_{whole}_us"] <= statistics.fmean(mine)
    assert row["min_latency_us"] == pytest.approx(min(lasts), rel=0.02, abs=2 * SLACK_US)
    assert 0.98 * statistics.median(lasts) - SLACK_US <= row["max_latency_us"] <= max(lasts)
    if max(lasts) < 1.2 * min(lasts):
        transfer = statistics.fmean(lasts) - statistics.fmean(firsts)
        assert row["avg_transfer_us"] == pytest.approx(transfer, rel=0.02, abs=2 * SLACK_US)
    parts = row["avg_wire_us"] + row["avg_wakeup_us"] + row["avg_transfer_us"]
    assert parts == pytest.approx(row["avg_latency_us"], abs=0.01)
    request, first = (result["distributions"][each] for each in ("request", "first_byte"))
    assert request["events"] == first["events"] >= times
    if request["events"] == times:  # nobody else's are among them
        assert request["percentiles"]["p50"] == pytest.approx(statistics.median(lasts), rel=0.02, abs=SLACK_US)
        assert first["percentiles"]["p50"] == pytest.approx(statistics.median(firsts), rel=0.02, abs=SLACK_US)


def test_a_request_that_is_never_answered_is_in_flight_in_each_interval(
    probe: Callable[..., Probe], tmp_path: Path
) -> None:
    stream = tmp_path / "news.jsonl"
    running = probe("latency", "--interval", "0.5s", "--export", f"jsonl:{stream}")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        own, (accepted, _) = client.getsockname(), server.accept()
        with accepted:
            for _ in range(2):
                client.send(b"?")
                accepted.recv(9)
                accepted.send(b"!")
                client.recv(9)
            client.send(b"?")
            accepted.recv(9)
            time.sleep(2.2)
            result = running.result()
    summaries = [line for line in map(json.loads, stream.read_text().splitlines()) if line["record"] == "snapshot"]
    ages = [line["in_flight_longest_us"] for line in summaries if line["in_flight"]]
    assert len(ages) >= 4
    assert ages == sorted(ages)
    assert ages[-1] > 2e6
    (row,) = [r for r in result["connections"].values() if r["source"] == "{}:{}".format(*own)]
    assert (row["events"], row["waiting_us"]) == (2, pytest.approx(ages[-1]))
