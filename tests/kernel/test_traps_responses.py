"""Traps of whole responses: when one is over, and what is no part of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import LiveProbe, Pair, live

PAUSE = 0.02
PAUSE_US = PAUSE * 1e6
LONG = 0.4  # what a response may take before it is a stream


def respond(ends: Pair, *parts: bytes, pause: float = PAUSE) -> None:
    """A response in parts, each read before the next one is sent."""
    for number, part in enumerate(parts):
        if number:
            time.sleep(pause)
        ends.server.send(part)
        assert ends.client.recv(99) == part


def assert_adds_up(row: dict[str, Any]) -> None:
    assert row["avg_first_byte_us"] + row["avg_transfer_us"] == pytest.approx(row["avg_latency_us"], abs=0.01)
    assert row["avg_wire_us"] + row["avg_wakeup_us"] == pytest.approx(row["avg_first_byte_us"], abs=0.01)


def test_a_response_in_parts_lasts_until_its_last_one(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    respond(ends, b"a", b"b", b"c")
    for more in range(2):  # as long as it is the last one, and when it is not
        client, server = ends.row("client"), ends.row("server")
        assert (client["events"], server["events"]) == (1 + more, 1 + more)
        assert client["max_latency_us"] > 2 * PAUSE_US
        assert 2 * PAUSE_US < client["avg_transfer_us"] * (1 + more) < client["max_latency_us"]
        assert server["avg_transfer_us"] * (1 + more) > 2 * PAUSE_US
        assert server["max_latency_us"] < client["max_latency_us"] - 2 * PAUSE_US
        assert_adds_up(client)
        ends.exchange()


def test_a_response_at_once_has_no_transfer_however_long_the_connection_is_idle(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange()
    time.sleep(PAUSE)
    for side in ("client", "server"):
        row = ends.row(side)
        assert (row["events"], row["avg_transfer_us"]) == (1, 0)
    assert ends.row("client")["min_latency_us"] == ends.row("client")["avg_first_byte_us"]


def test_a_peek_is_no_part_of_a_response(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange()
    time.sleep(PAUSE)
    ends.server.send(b"!")
    assert ends.client.recv(9, socket.MSG_PEEK) == b"!"
    assert ends.row("client")["avg_transfer_us"] == 0
    time.sleep(PAUSE)
    ends.client.recv(9)
    assert ends.row("client")["avg_transfer_us"] > 2 * PAUSE_US


def test_reads_of_nothing_are_no_part_of_a_response(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange()
    time.sleep(PAUSE)
    assert ends.client.recv(0) == b""
    ends.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.client.recv(9)
    assert ends.row("client")["avg_transfer_us"] == 0


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_connection_that_closes_has_its_last_response_whole(pair: Callable[..., Pair], first: str) -> None:
    ends = pair()
    ends.request()
    respond(ends, b"a", b"b")
    other = ends.server if first == "client" else ends.client
    getattr(ends, first).close()
    other.recv(9)
    other.close()
    for side in ("client", "server"):
        row = ends.row(side)
        assert (row["events"], row["state"]) == (1, "closed")
        assert row["avg_transfer_us"] > PAUSE_US
    assert_adds_up(ends.row("client"))


def test_a_response_ends_with_what_was_read_before_the_next_request(pair: Callable[..., Pair]) -> None:
    """What is read of it later is of nobody's."""
    ends = pair()
    ends.request()
    ends.server.send(b"ab")
    ends.client.recv(1)
    time.sleep(PAUSE)
    ends.request()
    assert ends.client.recv(1) == b"b"
    assert ends.row("client")["avg_transfer_us"] == 0
    ends.respond()
    row = ends.row("client")
    assert (row["events"], row["avg_transfer_us"]) == (2, 0)


@pytest.fixture(scope="module")
def streaming(way: str) -> Iterator[LiveProbe]:
    """All options at once: a probe of its own is a compilation, which takes a minute in an emulated machine."""
    with live(way, mode="events", main="first_byte", outlier=f"{LONG * 1000:.0f}ms") as probe:
        yield probe


def streamed(probe: LiveProbe, ends: Pair) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The requests and the services of a connection, which is closed."""
    ends.close()
    mine = [e for e in probe.events() if f":{ends.port}" in e["source"] + e["destination"]]
    return [e for e in mine if e["type"] == "request"], [e for e in mine if e["type"] == "service"]


def test_a_stream_counts_with_its_first_byte(streaming: LiveProbe) -> None:
    ends = Pair(streaming)
    ends.request()
    respond(ends, b"a", b"b", pause=LONG * 1.1)
    for more in range(2):  # as long as it is the last one, and when it is not
        row = ends.row("client")
        assert (row["events"], row["avg_transfer_us"]) == (1 + more, 0)
        ends.exchange()
    assert streaming.result()["streams"] >= 2  # at both ends
    requests, services = streamed(streaming, ends)
    assert [e["transfer_us"] for e in (*requests, *services)] == [0] * 6
    assert max(e["latency_us"] for e in requests) < LONG * 1e6


def test_first_bytes_as_the_main_figures(streaming: LiveProbe) -> None:
    ends = Pair(streaming)
    own = []
    for _ in range(3):
        began = time.monotonic_ns()
        ends.request()
        ends.respond()
        own.append((time.monotonic_ns() - began) / 1000)
        time.sleep(PAUSE)
        ends.respond()
    row = ends.row("client")
    assert row["avg_latency_us"] == row["avg_first_byte_us"] < sum(own) / len(own)
    assert row["avg_transfer_us"] > PAUSE_US
    assert row["avg_wire_us"] + row["avg_wakeup_us"] == pytest.approx(row["avg_first_byte_us"], abs=0.01)
    ends.close()


def test_streamed_exchanges_are_whole_each_one(streaming: LiveProbe) -> None:
    ends = Pair(streaming)
    streaming.events()
    ends.request()
    respond(ends, b"a", b"b")
    ends.exchange()
    requests, services = streamed(streaming, ends)
    assert [e["transfer_us"] > PAUSE_US for e in requests] == [True, False]
    assert [e["transfer_us"] > PAUSE_US for e in services] == [True, False]
    assert [e["bytes"] for e in (*requests, *services)] == [2, 1, 2, 1]
    for event in requests:
        assert event["wire_us"] + event["wakeup_us"] == pytest.approx(event["first_byte_us"], abs=0.0005)
        assert event["first_byte_us"] + event["transfer_us"] == pytest.approx(event["latency_us"], abs=0.0005)


def test_who_waits_for_a_response_is_seen_meanwhile(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    ends = pair()
    ends.exchange()
    ends.request()
    time.sleep(PAUSE)
    result = probe.result()
    rows = {row["side"]: row for row in probe.rows(ends.port, result)}
    assert rows["client"]["waiting_us"] > rows["server"]["waiting_us"] > PAUSE_US
    assert (rows["client"]["events"], rows["server"]["events"]) == (1, 1)
    assert result["in_flight"] >= 1
    assert result["in_flight_longest_us"] >= rows["client"]["waiting_us"]
    ends.respond()
    assert [row["waiting_us"] for row in probe.rows(ends.port)] == [None, None]
