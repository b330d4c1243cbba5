"""Traps of splitting an exchange: when its data was at the socket, which another CPU says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import pytest

from .conftest import LiveProbe, Pair, live
from .objects import SMALL

PAUSE = 0.02


@pytest.fixture(scope="module")
def picking(way: str) -> Iterator[LiveProbe]:
    """A probe that times pickups, too, and streams events."""
    with live(way, **SMALL) as attached:
        yield attached


def test_a_response_in_parts(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    for part in (b"a", b"b"):
        ends.server.send(part)
        time.sleep(PAUSE)
    assert ends.client.recv(9) == b"ab"
    row = ends.row("client")
    assert row["avg_wakeup_us"] > 2 * PAUSE * 1e6 > 2 * row["avg_wire_us"]


def test_each_response_has_its_own_arrival(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    ends = pair()
    for _ in range(3):
        ends.exchange()
        time.sleep(PAUSE / 4)
    assert probe.split(ends.port) == (3, 3)
    assert ends.row("client")["avg_wakeup_us"] < PAUSE / 4 * 1e6


def test_a_response_behind_the_rest_of_another(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """When it came nobody knows: the data that was there already is what its arrival was noted for."""
    ends = pair()
    ends.request()
    ends.server.send(b"abcdef")
    assert ends.client.recv(3) == b"abc"
    time.sleep(PAUSE)
    ends.request()
    ends.server.send(b"!")
    assert ends.client.recv(9) == b"def!"
    assert probe.split(ends.port) == (2, 1)
    assert ends.row("client")["avg_wakeup_us"] < PAUSE * 1e6
    ends.exchange()  # from here on it is known again
    assert probe.split(ends.port) == (3, 2)


def test_a_pickup_is_of_its_own_request(picking: LiveProbe) -> None:
    ends = Pair(picking)
    picking.events()
    ends.client.send(b"1")
    time.sleep(PAUSE)
    ends.server.recv(1)
    ends.client.send(b"2")  # its arrival is not noted: it is not known to be a request yet
    time.sleep(PAUSE)
    ends.server.send(b"!")
    ends.server.recv(1)
    ends.server.send(b"!")
    assert ends.client.recv(9) == b"!!"
    ends.client.send(b"3")
    time.sleep(PAUSE)
    ends.server.recv(1)
    ends.server.send(b"!")
    ends.close()
    mine = [e for e in picking.events() if e["type"] == "service" and f":{ends.port}" in e["destination"]]
    first, second, third = (event["wakeup_us"] for event in mine)
    assert first > PAUSE * 1e6
    assert math.isnan(second)
    assert third > PAUSE * 1e6
