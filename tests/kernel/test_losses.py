"""What does not fit is counted: events, records of closed connections, and connections themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .conftest import LiveProbe, Pair, live
from .objects import ROOM, SMALL

FITS = 4096 // 88
"""Events that the ring buffer holds: 80 bytes and a head of 8."""


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
    mine = [e for e in small.events() if f":{ends.port}" in e["source"] + e["destination"]]
    assert [e["type"] for e in mine] == ["service", "request"] * 3
    assert [e["time_ns"] for e in mine] == sorted(e["time_ns"] for e in mine)
    for service, request in zip(mine[::2], mine[1::2], strict=True):
        assert 0 < service["latency_us"] < request["latency_us"]
        assert 0 < request["wakeup_us"] < request["latency_us"]
        assert service["wakeup_us"] > 0
    assert ends.events() == (3, 3)


def test_ring_full(small: LiveProbe, small_pair: Callable[[], Pair]) -> None:
    ends = small_pair()
    before = small.result()
    with small.paused():
        ends.exchange(FITS)  # twice as many events
    after = small.result()
    delivered = sum(after["event_type_breakdown"].values()) - sum(before["event_type_breakdown"].values())
    lost = after["lost"]["events_ring_full"] - before["lost"]["events_ring_full"]
    assert lost >= FITS - 1
    assert after["produced"] - before["produced"] == delivered + lost
    assert after["produced"] == sum(after["event_type_breakdown"].values()) + after["lost"]["events_ring_full"]
    assert ends.events() == (FITS, FITS)  # rows of connections are not made of events


def test_map_full(small: LiveProbe, small_pair: Callable[[], Pair]) -> None:
    before = small.result()
    pairs = [small_pair() for _ in range(ROOM)]  # two sockets each
    for ends in pairs:
        ends.exchange()
    after = small.result()
    evicted = after["connections_evicted"] - before["connections_evicted"]
    assert evicted >= ROOM - 10  # some of the slots were others'
    assert after["lost"]["connections_ring_full"] == before["lost"]["connections_ring_full"]
    # each lost one exchange of a server at most: the request that came before it was known again
    counts = [ends.events(after) for ends in pairs]
    assert [client for client, _ in counts] == [1] * ROOM
    assert sum(server for _, server in counts) >= ROOM - evicted
    assert after["produced"] == sum(after["event_type_breakdown"].values()) + after["lost"]["events_ring_full"]


def test_outliers(small: LiveProbe, small_pair: Callable[[], Pair]) -> None:
    ends, before = small_pair(), small.result()
    ends.request()
    client = small.client(ends.port)
    small.records["start"][client] -= 2 * 10**9  # two seconds ago
    ends.respond()
    assert small.result()["lost"]["outliers"] == before["lost"]["outliers"] + 1
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


@pytest.mark.parametrize("parts", [1, 2])
def test_each_exchange_of_evicted_connections_is_measured_or_lost(way: str, parts: int) -> None:
    """In groups, so that each connection has been evicted when its turn comes, some in the middle of an exchange."""
    pairs, rounds = 150, 4
    with live(way, max_connections=64) as probe:
        ends = [Pair(probe) for _ in range(pairs)]
        for _ in range(rounds):
            for group in range(0, pairs, 50):
                some = ends[group : group + 50]
                for _ in range(parts):
                    for each in some:
                        each.request()
                for each in some:
                    each.respond()
        result = probe.result()
        for each in ends:
            each.close()
    measured, lost = result["event_type_breakdown"], result["lost"]
    assert lost["table_contended"] == result["begun_before"] == 0
    assert lost["exchanges_evicted"] > 0
    assert measured["request"] + measured["service"] + lost["exchanges_evicted"] == 2 * pairs * rounds
    assert result["unanswered"] == 0


def test_exchanges_whose_connections_were_evicted_in_between(way: str) -> None:
    with live(way, max_connections=64) as probe:
        ends = [Pair(probe) for _ in range(150)]
        for _ in range(3):
            for each in ends:
                each.exchange()
        result = probe.result()
        for each in ends:
            each.close()
    assert result["connections_evicted"] > 600
    assert result["event_type_breakdown"] == {"request": 450, "service": 450}
    assert not any(count for cause, count in result["lost"].items() if cause != "connections_ring_full")


def test_more_evictions_than_are_remembered(way: str) -> None:
    """The first service of a connection that nobody knows may be one that an eviction hid."""
    stranger = Pair(None)
    with live(way, max_connections=64) as probe:
        ends = [Pair(probe) for _ in range(150)]
        while probe.result()["connections_evicted"] < 10_000:
            for each in ends * 5:
                each.exchange()
        before = probe.result()
        stranger.exchange()
        after = probe.result()
        for each in (stranger, *ends):
            each.close()
    assert after["lost"]["exchanges_evicted"] == before["lost"]["exchanges_evicted"] + 1
    assert after["begun_before"] == before["begun_before"] == 0
