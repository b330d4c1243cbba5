"""What does not fit is counted: events, records of closed connections, and connections themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import LiveProbe, Pair, live
from .objects import ROOM, SMALL

FITS = 4096 // 88
"""Events that the ring buffer holds: 80 bytes and a head of 8."""
PAIRS = 150


@pytest.fixture(scope="module")
def small(way: str) -> Iterator[LiveProbe]:
    """A probe that streams events and has little room for anything."""
    with live(way, **SMALL) as attached:
        yield attached


@pytest.fixture
def small_pair(small: LiveProbe) -> Iterator[Callable[[], Pair]]:
    """Makes connections that it sees."""
    made: list[Pair] = []

    def make() -> Pair:
        made.append(Pair(small))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_events_have_each_exchange(small: LiveProbe, small_pair: Callable[[], Pair]) -> None:
    ends = small_pair()
    small.events()
    ends.exchange(3)
    ends.close()
    mine = [e for e in small.events() if f":{ends.port}" in e["source"] + e["destination"]]
    assert [e["type"] for e in mine] == ["service", "request"] * 3
    assert [e["time_ns"] for e in mine] == sorted(e["time_ns"] for e in mine)
    for service, request in zip(mine[::2], mine[1::2], strict=True):
        assert 0 < service["latency_us"] < request["latency_us"]
        assert 0 < request["wakeup_us"] < request["latency_us"]
        assert service["wakeup_us"] > 0
    assert ends.events() == (3, 3)


def assert_produced(result: dict[str, Any]) -> None:
    """Each event was delivered or lost, whoever's it is; of a probe that has been detached."""
    assert result["produced"] == sum(result["event_type_breakdown"].values()) + result["lost"]["events_ring_full"]


def test_ring_full(way: str) -> None:
    with live(way, mode="events", buffer="4KiB") as small:
        ends = Pair(small)
        with small.paused():
            ends.exchange(FITS)  # twice as many events
        small.detach()
        result = small.result()
        assert result["lost"]["events_ring_full"] >= FITS - 1
        assert_produced(result)
        assert ends.events(result) == (FITS, FITS)  # rows of connections are not made of events
        ends.close()


def test_map_full(way: str) -> None:
    with live(way, **SMALL) as small:
        pairs = [Pair(small) for _ in range(ROOM)]  # two sockets each
        for ends in pairs:
            ends.exchange()
        small.detach()
        result = small.result()
        assert result["connections_evicted"] >= ROOM - 10  # the table has some slots more than it was asked for
        missing = 2 * ROOM - sum(sum(ends.events(result)) for ends in pairs)
        lost = result["lost"]
        assert missing <= lost["exchanges_evicted"] + lost["connections_ring_full"] + unseen(result)
        assert_produced(result)
        for ends in pairs:
            ends.close()


def test_outliers(small: LiveProbe, small_pair: Callable[[], Pair]) -> None:
    ends, before = small_pair(), small.result()
    ends.request()
    client = small.client(ends.port)
    small.records["start"][client] -= 2 * 10**9  # two seconds ago
    ends.respond()
    assert small.result()["lost"]["outliers"] > before["lost"]["outliers"]
    assert ends.events() == (0, 1)


def test_closed_ring_full(small: LiveProbe) -> None:
    before = small.result()
    seen = []
    with small.paused():
        for _ in range(250):  # 160 bytes a record with its head, two a connection; 64 KiB
            ends = Pair(small)
            ends.exchange()
            ends.close()
            seen.append(ends)
    after = small.result()
    lost = after["lost"]["connections_ring_full"] - before["lost"]["connections_ring_full"]
    assert lost > 0
    listed = sum(sum(ends.events(after)) for ends in seen[:2] + seen[-2:])
    assert listed == 4  # the first ones are there, the last ones are not


@contextlib.contextmanager
def crowd(way: str) -> Iterator[tuple[LiveProbe, list[Pair], LiveProbe]]:
    """A probe, connections that it has no room for, and a probe that has room for those of the whole machine."""
    with live(way) as roomy, live(way, max_connections=ROOM) as probe:
        ends: list[Pair] = []
        try:
            ends += (Pair(probe) for _ in range(PAIRS))
            yield probe, ends, roomy
        finally:
            for each in ends:
                each.close()


def accounted(result: dict[str, Any]) -> int:
    """Exchanges that were measured or are lost, whoever's they are: a probe's figures are of the whole machine."""
    return int(sum(result["event_type_breakdown"].values()) + result["lost"]["exchanges_evicted"])


def unseen(result: dict[str, Any]) -> int:
    """How many events, and exchanges at most, others were in the way of."""
    lost = result["lost"]
    return int(lost["table_contended"] + lost["programs_missed"])


def of_others(roomy: LiveProbe, exchanges: int) -> int:
    """How much of it may be of others, who have exchanges and connections that may be in the middle of one.

    Args:
        roomy: A probe that has room for all.
        exchanges: The test's own.
    """
    result = roomy.result()
    unmeasured = sum(result["lost"].values()) + result["begun_before"]
    others = accounted(result) - exchanges + unmeasured + result["connections_seen"] - 2 * PAIRS
    return 2 * int(others)  # one that is evicted and forgotten in the middle may be lost twice


@pytest.mark.parametrize(("parts", "remembered"), [(1, True), (2, True), (1, False)])
def test_each_exchange_of_evicted_connections_is_measured_or_lost(way: str, parts: int, remembered: bool) -> None:
    """In groups, so that each connection has been evicted when its turn comes, some in the middle of an exchange."""
    rounds = 4
    with crowd(way) as (probe, ends, roomy):
        for _ in range(rounds):
            for group in range(0, PAIRS, 50):
                if not remembered:
                    probe.push_out_evictions()
                some = ends[group : group + 50]
                for _ in range(parts):
                    for each in some:
                        each.request()
                for each in some:
                    each.respond()
        result, others = probe.result(), of_others(roomy, 2 * PAIRS * rounds)
    assert result["lost"]["exchanges_evicted"] > (0 if remembered else PAIRS)
    assert -unseen(result) <= accounted(result) - 2 * PAIRS * rounds <= others
    assert max(unseen(result), result["begun_before"], result["unanswered"]) <= others


def test_exchanges_whose_connections_were_evicted_in_between(way: str) -> None:
    with crowd(way) as (probe, ends, roomy):
        for _ in range(3):
            for each in ends:
                each.exchange()
        result, others = probe.result(), of_others(roomy, 2 * PAIRS * 3)
    assert result["connections_evicted"] > 600
    assert -unseen(result) <= accounted(result) - 2 * PAIRS * 3 <= others
    assert result["lost"]["exchanges_evicted"] <= others


def test_more_evictions_than_are_remembered(way: str) -> None:
    """The first service of a connection that nobody knows may be one that an eviction hid."""
    with contextlib.closing(Pair(None)) as stranger, crowd(way) as (probe, ends, roomy):
        before = probe.result()
        probe.push_out_evictions()
        for each in ends:
            each.exchange()
        stranger.exchange()
        after, others = probe.result(), of_others(roomy, 2 * PAIRS + 1)
    assert after["lost"]["exchanges_evicted"] > before["lost"]["exchanges_evicted"]
    assert -unseen(after) <= accounted(after) - accounted(before) - 2 * (PAIRS + 1) <= others
    assert after["begun_before"] <= others


def test_an_evicted_socket_that_closed_is_not_the_one_that_gets_its_address(way: str) -> None:
    with crowd(way) as (probe, ends, roomy):
        sockets = roomy.sockets(each.port for each in ends)
        assert probe.remembered(sockets) > PAIRS
        for each in ends:
            each.close()
        assert probe.remembered(sockets) <= 5  # an address may be another one's already, whose record was evicted too
