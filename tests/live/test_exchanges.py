"""What counts as one exchange: real system calls on a connection of the test's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Probe

PAUSE = 0.02


class Pair:
    """Both ends of a TCP connection on loopback."""

    def __init__(self, backlog: int = 5) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.server, _ = listener.accept()
        self.names = ["{}:{}".format(*end.getsockname()) for end in (self.client, self.server)]

    def exchange(self) -> None:
        """A request and its response, with nothing in between."""
        self.client.send(b"?")
        self.server.recv(9)
        self.server.send(b"!")
        self.client.recv(9)

    def rows(self, probe: Probe) -> tuple[Any, Any]:
        """The client's and the server's row; None for a side without an exchange."""
        result = probe.result()
        found = {row["source"]: row for row in result["connections"].values()}
        client, server = (found.get(name) for name in self.names)
        return client, server

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(**options: int) -> Pair:
        made.append(Pair(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_client_that_reads_late_waits_itself_and_not_for_the_wire(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running, ends = probe("latency", "--set", "probe.latency.pickup=true"), pair()
    for _ in range(20):
        ends.client.send(b"?")
        ends.server.recv(9)
        ends.server.send(b"!")
        time.sleep(PAUSE)
        ends.client.recv(9)
    result = running.result()
    row = next(r for r in result["connections"].values() if r["source"] == ends.names[0])
    assert row["events"] == 20
    assert row["avg_wakeup_us"] > PAUSE * 1e6 > 10 * row["avg_wire_us"]
    assert row["avg_wire_us"] + row["avg_wakeup_us"] == pytest.approx(row["avg_latency_us"], rel=0.001)
    for name in ("wakeup", "request"):  # those of others are among them
        assert sum(result["distributions"][name]["histogram"][bucket] for bucket in ("10-50ms", "50-100ms")) >= 20


def test_a_streamed_response_is_one_exchange(probe: Callable[..., Probe], pair: Callable[..., Pair]) -> None:
    running, ends = probe("latency"), pair()
    ends.client.send(b"?")
    ends.server.recv(9)
    for _ in range(50):
        ends.server.send(b"x" * 1000)
        ends.client.recv(1000)
    client, server = ends.rows(running)
    assert (client["events"], server["events"]) == (1, 1)


def test_a_second_send_before_the_answer_does_not_move_the_start(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running, ends = probe("latency"), pair()
    ends.client.send(b"?")
    time.sleep(PAUSE)
    ends.exchange()
    client, server = ends.rows(running)
    assert (client["events"], server["events"]) == (1, 1)
    assert client["min_latency_us"] > PAUSE * 1e6


def test_a_request_that_came_while_another_was_answered_is_measured_too(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running, ends = probe("latency"), pair()
    ends.client.send(b"1")
    ends.server.recv(1)
    ends.client.send(b"2")
    time.sleep(PAUSE)
    ends.server.send(b"!")
    ends.server.recv(1)
    time.sleep(PAUSE)
    ends.server.send(b"!")
    _, server = ends.rows(running)
    assert server["events"] == 2
    assert server["min_latency_us"] > PAUSE * 1e6


def test_empty_reads_and_peeks_are_no_exchanges(probe: Callable[..., Probe], pair: Callable[..., Pair]) -> None:
    running, ends = probe("latency"), pair()
    ends.client.setblocking(False)
    ends.client.send(b"?")
    for _ in range(10):
        with pytest.raises(BlockingIOError):
            ends.client.recv(9)
    ends.server.recv(9)
    ends.server.send(b"!")
    time.sleep(PAUSE)
    for _ in range(10):
        ends.client.recv(9, socket.MSG_PEEK)
    ends.client.recv(9)
    client, server = ends.rows(running)
    assert (client["events"], server["events"]) == (1, 1)


def test_the_rest_of_an_earlier_response_does_not_answer_the_next_request(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running, ends = probe("latency"), pair()
    ends.client.send(b"?")
    ends.server.recv(9)
    ends.server.send(b"abcdef")
    ends.client.recv(3)
    ends.client.send(b"?")
    ends.client.recv(3)
    ends.server.recv(9)
    time.sleep(PAUSE)
    ends.server.send(b"!")
    ends.client.recv(9)
    client, _ = ends.rows(running)
    assert client["events"] == 2
    assert client["max_latency_us"] > PAUSE * 1e6


def test_a_connection_older_than_the_probe_has_the_right_side(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    ends = pair()
    running = probe("latency")
    for _ in range(5):
        ends.exchange()
    client, server = ends.rows(running)
    assert (client["side"], client["older"], client["events"]) == ("client", True, 5)
    assert (server["side"], server["older"]) == ("server", True)
    assert server["events"] in (4, 5)  # where its first request had come before it was known, its start is not


def test_what_takes_longer_than_the_limit_is_an_outlier(probe: Callable[..., Probe], pair: Callable[..., Pair]) -> None:
    running, ends = probe("latency", "--set", "probe.latency.outlier=10ms"), pair()
    ends.client.send(b"?")
    ends.server.recv(9)
    time.sleep(PAUSE)
    ends.server.send(b"!")
    ends.client.recv(9)
    result = running.result()
    assert result["lost"]["outliers"] >= 2
    assert not {row["source"] for row in result["connections"].values()} & set(ends.names)


def test_a_sample_of_the_exchanges_is_decided_in_the_kernel(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running, ends = probe("latency", "--set", "probe.latency.sample=0.25"), pair()
    for _ in range(2000):
        ends.exchange()
    result = running.result()
    client, server = (
        next(row for row in result["connections"].values() if row["source"] == name) for name in ends.names
    )
    assert 400 < client["events"] < 600  # ten standard deviations about a quarter of 2000
    assert 400 < server["events"] < 600
    assert result["sampled_out"] >= 4000 - client["events"] - server["events"]


def test_more_connections_than_there_is_room_for_keep_their_figures(
    probe: Callable[..., Probe], pair: Callable[..., Pair]
) -> None:
    running = probe("latency", "--set", "probe.latency.max_connections=64")
    time.sleep(1)  # the reader of the ring buffer begins a moment after the programs
    pairs = [pair(backlog=8) for _ in range(100)]
    busy = pair()
    for _ in range(3):
        for ends in pairs:
            for each in (ends, busy):
                each.exchange()
            time.sleep(0.001)  # each may evict one: the reader has to keep up, which is not what this is about
    result = running.result()
    rows = {row["source"]: row for row in result["connections"].values()}
    assert result["connections_evicted"] > 100
    untaken = result["lost"]["connections_ring_full"]  # none, unless others fill the ring
    left = result["lost"]["exchanges_evicted"] + 3 * untaken
    events = [rows.get(ends.names[0], {"events": 0})["events"] for ends in pairs]
    assert events.count(3) >= 100 - left  # all but those that had to leave with a request under way
    assert 300 - left <= sum(events) <= 300
    assert untaken or all(300 - left <= rows[name]["events"] <= 300 for name in busy.names)
    names = {name for ends in (*pairs, busy) for name in ends.names}
    if rows.keys() <= names:  # nobody else's took a place
        assert (untaken, left <= 10) == (0, True)
        assert [rows[name]["events"] for name in busy.names] == [300, 300]  # never used longest ago
