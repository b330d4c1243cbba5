"""The latency probe's figures, from records as the kernel would hand them over."""

from __future__ import annotations

import gc
import ipaddress
import math
import tracemalloc
from collections.abc import Iterable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit import Batch, Columns, Figures, Seconds, Table
from probekit.aggregate.histogram import BUCKETS, bucket_of
from probekit.model import Array
from probekit_latency.aggregate import LatencyAggregator
from probekit_latency.config import LatencyConfig
from probekit_latency.decode import decoders
from probekit_latency.values import End, Figure, Longer, Measure, Origin, Side

_ADDRESSES = np.dtype([("local", "u1", 16), ("remote", "u1", 16), ("local_port", "u2"), ("remote_port", "u2")])
_CONNECTION = np.dtype(
    [
        (name, "u8")
        for name in (
            "socket", "start", "events_received_high", "sum", "square_low", "wait", "min_unsplit", "max_srtt_us",
            "unsplit_sum",
        )
    ]
    + [(name, "u4") for name in ("place", "used", "pid", "square_high")]
    + [("side", "u1"), ("origin", "u1"), ("sent_high", "u2"), ("addresses", _ADDRESSES)]
)  # fmt: skip
_TRANSPORT = np.dtype([(name, "u4") for name in ("id_low", "id_high", "sent_low", "received_low", "retransmits")])
_RECORD = np.dtype(
    [("connection", _CONNECTION), ("transport", _TRANSPORT), ("end", "u4"), ("lasted", "u8"), ("transferred", "u8")]
)
_WAYS = 8
_SET = np.dtype(
    [("tag", "u4", _WAYS), ("connection", _CONNECTION, _WAYS), ("transport", _TRANSPORT, _WAYS)]
    + [(name, "u8", _WAYS) for name in ("lasted", "transferred")]
)
_EVENT = np.dtype(
    [(name, "u8") for name in ("time", "latency", "transfer", "wait", "socket")]
    + [(name, "u1") for name in ("side", "origin")]
    + [("addresses", _ADDRESSES), ("pid", "u4"), ("srtt_us", "u4"), ("bytes", "u4"), ("retransmits", "u4")]
)
_COUNTERS = np.dtype(
    [
        (name, "u8")
        for name in (
            "events", "events_lost", "connections", "closed", "closed_lost", "evicted", "cut", "older", "contended",
            "outliers", "sampled_out", "unanswered", "clock", "streams",
            "held_back",
        )
    ]
)  # fmt: skip
_OWNER = np.dtype([("key", "u4"), ("value", [("name", "S16")])])
_UNDELIVERED = np.dtype(
    [(name, "u8") for name in ("events", "sum", "min", "max", "square_low", "square_middle", "square_high")]
)
_HISTOGRAM = np.dtype([("buckets", "u8", BUCKETS)])
_UNSEEN = 2**64 - 1


def _address(text: str) -> list[int]:
    address = ipaddress.ip_address(text)
    packed = b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    return list(packed)


def _connect(
    row: Array, local: str = "10.0.0.1", remote: str = "10.0.0.2", local_port: int = 40_000, remote_port: int = 80,
    side: Side = Side.CLIENT, origin: Origin = Origin.BIRTH,
) -> None:  # fmt: skip
    """Whose row it is."""
    row["side"], row["origin"] = side, origin
    row["addresses"] = _address(local), _address(remote), local_port, remote_port


def _connection(
    latencies: Iterable[int] = (1_000,), socket: int = 1, wait: int = 0, sent: int = 0, received: int = 0,
    retransmits: int = 0, unsplit: int = 0, unsplit_sum: int = 0, pid: int = 7, srtt_us: int = 0,
    id: int = 0, events: int | None = None, end: int = End.OPEN, **endpoint: Any,  # noqa: A002
) -> Array:  # fmt: skip
    values = list(latencies)
    squares = sum(value * value for value in values)
    row = np.zeros(1, _RECORD)
    for name, value in {
        "socket": socket, "sum": sum(values), "square_low": squares & (1 << 64) - 1, "square_high": squares >> 64,
        "events_received_high": (len(values) if events is None else events) << 16 | received >> 32,
        "min_unsplit": min(values, default=0) << 28 | unsplit, "max_srtt_us": max(values, default=0) << 28 | srtt_us,
        "wait": wait, "unsplit_sum": unsplit_sum, "pid": pid, "sent_high": sent >> 32,
    }.items():  # fmt: skip
        row["connection"][name] = value
    for name, value in {
        "id_low": id % 2**32, "id_high": id >> 32, "sent_low": sent % 2**32, "received_low": received % 2**32,
        "retransmits": retransmits,
    }.items():  # fmt: skip
        row["transport"][name] = value
    row["end"] = end
    _connect(row["connection"], **endpoint)
    return row


def _event(
    latency: int, wait: int = _UNSEEN, time: int = 1, pid: int = 7, srtt_us: int = 0, **endpoint: Any
) -> Array:  # fmt: skip
    row = np.zeros(1, _EVENT)
    row["time"], row["latency"], row["wait"], row["pid"], row["srtt_us"] = time, latency, wait, pid, srtt_us
    _connect(row, **endpoint)
    return row


def _sets(records: Array) -> Array:
    """The kernel's table with these connections in it, two in a set."""
    sets = np.zeros(-(-len(records) // 2), _SET)
    for number, record in enumerate(records):
        place = number // 2, (3, 5)[number % 2]
        sets["tag"][place] = record["connection"]["socket"]
        for part in ("connection", "transport", "lasted", "transferred"):
            sets[part][place] = record[part]
    return sets


def _columns(source: str, data: Array, taken: int = 0, **options: Any) -> Columns:
    decode = decoders(LatencyConfig(**options))[source]
    return attrs.evolve(decode(Batch(source, data)), taken=taken)


def _feed(aggregator: LatencyAggregator, source: str, *parts: Array, **options: Any) -> None:
    data = np.concatenate([np.zeros(0, _EVENT if source == "events" else _RECORD), *parts])
    aggregator.update(_columns(source, _sets(data) if source == "connections" else data, **options))


def _table(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(column.values.tolist() for column in table.columns), strict=True)
    ]


def _listed(aggregator: LatencyAggregator) -> list[dict[str, Any]]:
    return _table(aggregator.snapshot().tables[0])


def _keys(aggregator: LatencyAggregator) -> list[str]:
    return [str(key) for key in aggregator.snapshot().tables[0].key.tolist()]


def _aggregator(**options: Any) -> LatencyAggregator:
    return LatencyAggregator(LatencyConfig(**options))


def test_an_open_connection_is_listed_with_its_figures() -> None:
    aggregator = _aggregator()
    latencies = [100_000, 250_000, 400_000]
    _feed(
        aggregator, "connections",
        _connection(latencies, wait=30_000, sent=300, received=9 << 32, retransmits=2, pid=7, srtt_us=55, id=2**32 + 2),
    )  # fmt: skip
    aggregator.update(_columns("owners", np.array([(7, (b"curl",))], _OWNER)))
    (row,) = _listed(aggregator)
    assert row == {
        "source": "10.0.0.1:40000",
        "destination": "10.0.0.2:80",
        "side": "client",
        "pid": 7,
        "process": "curl",
        "id": "00000001-00000002",
        "events": 3,
        "min_latency_us": 100.0,
        "avg_latency_us": 250.0,
        "max_latency_us": 400.0,
        "std_dev_us": pytest.approx(np.std(latencies) / 1000),
        "avg_wire_us": 240.0,
        "avg_wakeup_us": 10.0,
        "avg_first_byte_us": 250.0,
        "avg_transfer_us": 0.0,
        "min_rtt_us": 0,
        "verdict": "peer",
        "waiting_us": pytest.approx(math.nan, nan_ok=True),
        "srtt_us": 55,
        "bytes_sent": 300,
        "bytes_received": 9 << 32,
        "retransmits": 2,
        "state": "open",
        "older": False,
    }
    assert _keys(aggregator) == ["10.0.0.1:40000 -> 10.0.0.2:80"]


def test_a_connection_whose_beginning_was_not_seen_says_so() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection(origin=Origin.UNSEEN))
    assert _listed(aggregator)[0]["older"] is True


def test_ipv6_endpoints_are_in_brackets() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection(local="fd00::1", remote="2001:db8::2"))
    assert _keys(aggregator) == ["[fd00::1]:40000 -> [2001:db8::2]:80"]


def test_a_connection_without_an_exchange_is_not_listed() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([], socket=1), _connection([5], socket=2, local_port=2))
    _feed(aggregator, "closed", _connection([], socket=3, end=End.CLOSED))
    assert _keys(aggregator) == ["10.0.0.1:2 -> 10.0.0.2:80"]


def test_the_table_of_open_connections_is_as_it_was_read_last() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5], socket=1), _connection([5], socket=2, local_port=2))
    _feed(aggregator, "connections", _connection([5, 6], socket=1))
    assert [row["events"] for row in _listed(aggregator)] == [2]
    _feed(aggregator, "connections")
    assert _listed(aggregator) == []


def test_a_closed_connection_stays_in_every_later_snapshot() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections")
    _feed(aggregator, "closed", _connection([5, 6], end=End.CLOSED))
    for _ in range(3):
        (row,) = _listed(aggregator)
        assert (row["events"], row["state"]) == (2, "closed")


def test_connections_are_listed_by_their_number_of_exchanges() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "closed", _connection([1] * 2, 1, end=End.CLOSED), _connection([1] * 9, 2, end=End.CLOSED))
    _feed(aggregator, "connections", _connection([1] * 5, 3), _connection([1], 4))
    assert [row["events"] for row in _listed(aggregator)] == [9, 5, 2, 1]


def test_the_parts_of_an_evicted_connection_are_one_row() -> None:
    aggregator = _aggregator()
    parts = [[100_000, 900_000], [50_000], [200_000, 300_000, 5_000_000_000]]
    evicted = {"socket": 1, "end": End.EVICTED}
    _feed(
        aggregator, "closed",
        _connection(
            parts[0], wait=100, sent=10, received=100, retransmits=1, pid=7, unsplit=1, unsplit_sum=900_000, **evicted
        ),
        _connection([1_000], socket=2, local_port=2, end=End.CLOSED),
        _connection(parts[1], wait=200, sent=15, received=150, retransmits=1, pid=8, origin=Origin.UNSEEN, **evicted),
    )  # fmt: skip
    _feed(
        aggregator, "connections",
        _connection(parts[2], wait=300, sent=40, received=400, retransmits=3, pid=9, srtt_us=5, origin=Origin.UNSEEN),
    )  # fmt: skip
    row, other = _listed(aggregator)
    together = [latency for part in parts for latency in part]
    assert other["source"] == "10.0.0.1:2"
    assert (row["events"], row["state"], row["older"], row["pid"], row["srtt_us"]) == (6, "open", False, 9, 5)
    assert (row["min_latency_us"], row["max_latency_us"]) == (50.0, 5_000_000.0)
    assert row["avg_latency_us"] == pytest.approx(np.mean(together) / 1000)
    assert row["std_dev_us"] == pytest.approx(np.std(together) / 1000)
    assert row["avg_wakeup_us"] == pytest.approx(600 / 5 / 1000)
    assert (row["bytes_sent"], row["bytes_received"], row["retransmits"]) == (40, 400, 3)


def test_parts_that_come_in_different_batches_and_intervals_are_one_row() -> None:
    aggregator = _aggregator(max_closed=1)
    for _ in range(3):
        _feed(aggregator, "closed", _connection([5], end=End.EVICTED))
        _feed(aggregator, "closed", _connection([6, 7], end=End.EVICTED))
        aggregator.snapshot()
    _feed(aggregator, "closed", _connection([8], end=End.CLOSED))
    (row,) = _listed(aggregator)
    assert (row["events"], row["state"]) == (10, "closed")


def test_an_evicted_connection_that_was_not_seen_again_says_so() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "closed", _connection(end=End.EVICTED))
    assert _listed(aggregator)[0]["state"] == "evicted"


def test_what_follows_a_close_at_the_same_address_is_another_connection() -> None:
    aggregator = _aggregator()
    _feed(
        aggregator, "closed",
        _connection([1] * 1, end=End.EVICTED), _connection([1] * 2, end=End.CLOSED),
        _connection([1] * 10, end=End.CLOSED),
        _connection([1] * 20, end=End.EVICTED), _connection([1] * 40, end=End.EVICTED),
    )  # fmt: skip
    _feed(aggregator, "connections", _connection([1] * 80))
    assert [(row["events"], row["state"]) for row in _listed(aggregator)] == [
        (140, "open"),
        (10, "closed"),
        (3, "closed"),
    ]


@pytest.mark.parametrize(
    "other", [{"socket": 2}, {"local": "10.0.0.9"}, {"remote": "10.0.0.9"}, {"local_port": 1}, {"remote_port": 1}]
)
def test_an_evicted_connection_is_not_merged_with_another_socket_or_address(other: dict[str, Any]) -> None:
    aggregator = _aggregator()
    _feed(aggregator, "closed", _connection([1], end=End.EVICTED))
    _feed(aggregator, "connections", _connection([1, 2], **other))
    assert [row["events"] for row in _listed(aggregator)] == [2, 1]


@pytest.mark.parametrize("end", [End.CLOSED, End.EVICTED])
def test_a_connection_that_leaves_the_table_between_the_reads_of_one_interval_is_counted_once(end: End) -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5, 6], sent=20, received=200))
    _feed(aggregator, "closed", _connection([5, 6, 7], sent=30, received=300, end=end))
    assert [(row["events"], row["state"]) for row in _listed(aggregator)] == [(3, end.name.lower())]


def test_a_part_that_had_left_before_the_table_was_read_is_counted_with_the_one_in_the_table() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5, 6], sent=50, received=500, origin=Origin.UNSEEN))
    _feed(aggregator, "closed", _connection([5, 6, 7], sent=30, received=300, end=End.EVICTED))
    (row,) = _listed(aggregator)
    assert (row["events"], row["state"], row["bytes_sent"], row["older"]) == (5, "open", 50, False)


def test_several_connections_of_one_key_are_numbered() -> None:
    aggregator = _aggregator()
    closed = [_connection([1] * events, socket, end=End.CLOSED) for socket, events in enumerate((1, 3, 2), 1)]
    _feed(aggregator, "closed", *closed, _connection([1] * 9, 9, local_port=9, end=End.CLOSED))
    name = "10.0.0.1:40000 -> 10.0.0.2:80"
    assert _keys(aggregator) == ["10.0.0.1:9 -> 10.0.0.2:80", name, f"{name} #2", f"{name} #3"]


def test_the_oldest_of_too_many_closed_connections_are_one_row_a_side() -> None:
    aggregator = _aggregator(max_closed=2)
    client = [_connection([10_000 * i], i, local_port=i, wait=1_000, end=End.CLOSED) for i in range(1, 6)]
    server = [_connection([7_000, 9_000], i, local_port=i, side=Side.SERVER, end=End.CLOSED) for i in range(6, 8)]
    _feed(aggregator, "closed", *client[:3])
    aggregator.snapshot()
    _feed(aggregator, "closed", *server, *client[3:])
    aggregator.update(_columns("owners", np.array([(7, (b"curl",))], _OWNER)))
    rows = _listed(aggregator)
    assert sorted(row["source"] for row in rows[:2]) == ["10.0.0.1:4", "10.0.0.1:5"]
    others = {row["side"]: row for row in rows[2:]}
    assert sorted(others) == ["client", "server"]
    for row in others.values():
        assert (row["source"], row["destination"]) == ("(other connections)", "(other connections)")
        assert (row["pid"], row["process"], row["srtt_us"]) == (0, "", 0)
    assert (others["client"]["events"], others["server"]["events"]) == (3, 4)
    assert (others["client"]["min_latency_us"], others["client"]["max_latency_us"]) == (10.0, 30.0)
    assert others["client"]["std_dev_us"] == pytest.approx(np.std([10, 20, 30]))
    assert others["client"]["avg_wakeup_us"] == 1.0
    assert len(set(_keys(aggregator))) == 4


_closed = st.lists(
    st.tuples(
        st.integers(1, 3), st.sampled_from(Side), st.sampled_from([End.CLOSED, End.EVICTED]),
        st.lists(st.integers(1, 60_000_000_000), min_size=1, max_size=3),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def _feed_generated(aggregator: LatencyAggregator, batches: list[list[tuple[int, Side, End, list[int]]]]) -> None:
    for batch in batches:
        rows = [
            _connection(latencies, socket, side=side, end=end, local_port=side * 10 + socket)
            for socket, side, end, latencies in batch
        ]
        _feed(aggregator, "closed", *rows)


@given(st.lists(_closed, min_size=1, max_size=5), st.integers(0, 10))
@settings(derandomize=True, deadline=None)
def test_adding_up_keeps_the_number_the_sum_and_the_extremes_of_each_side(
    batches: list[list[tuple[int, Side, End, list[int]]]], max_closed: int
) -> None:
    aggregator = _aggregator(max_closed=max_closed)
    _feed_generated(aggregator, batches)
    table = aggregator.snapshot().tables[0]
    rows = _table(table)
    assert len({str(key) for key in table.key.tolist()}) == len(rows)
    assert sum(row["source"] != "(other connections)" for row in rows) <= max_closed
    for side in Side:
        given = [value for batch in batches for _, s, _, values in batch if s is side for value in values]
        found = [row for row in rows if row["side"] == side.name.lower()]
        assert sum(row["events"] for row in found) == len(given)
        assert math.fsum(row["events"] * row["avg_latency_us"] for row in found) == pytest.approx(sum(given) / 1000)
        if given:
            assert min(row["min_latency_us"] for row in found) == min(given) / 1000
            assert max(row["max_latency_us"] for row in found) == max(given) / 1000


def test_adding_up_keeps_the_bytes_and_the_retransmits_of_each_side() -> None:
    aggregator = _aggregator(max_closed=1)
    for i in range(1, 5):
        _feed(
            aggregator, "closed",
            _connection([5], i, sent=100 * i, received=1_000 * i, retransmits=i, local_port=i, end=End.CLOSED),
        )  # fmt: skip
    for _ in range(2):
        rows = _listed(aggregator)
        assert sum(row["bytes_sent"] for row in rows) == 1_000
        assert sum(row["bytes_received"] for row in rows) == 10_000
        assert sum(row["retransmits"] for row in rows) == 10


def test_with_no_closed_connections_kept_only_the_open_ones_are_listed_by_name() -> None:
    aggregator = _aggregator(max_closed=0)
    _feed(aggregator, "connections", _connection([1], 9))
    _feed(aggregator, "closed", _connection([1, 2], 1, local_port=1, end=End.CLOSED))
    assert [(row["source"], row["events"]) for row in _listed(aggregator)] == [
        ("10.0.0.1:40000", 1),
        ("(other connections)", 2),
    ]


def test_connections_that_came_and_went_take_no_memory_beyond_the_rows_that_are_kept() -> None:
    aggregator = _aggregator(max_closed=10)
    _feed(aggregator, "connections")
    aggregator.snapshot()
    batch = np.concatenate([_connection([5], i, local_port=i, end=End.CLOSED) for i in range(1, 101)])
    batch = np.tile(batch, 50)
    _feed(aggregator, "closed", batch)
    tracemalloc.start()
    try:
        for _ in range(20):
            _feed(aggregator, "closed", batch)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * batch.nbytes


def test_a_server_has_no_wire_time() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5_000, 7_000], wait=1_000, side=Side.SERVER))
    (row,) = _listed(aggregator)
    assert (row["side"], row["avg_wakeup_us"]) == ("server", 0.5)
    assert math.isnan(row["avg_wire_us"])


@pytest.mark.parametrize(("events", "unsplit"), [(4, 1), (1_000, 600), (100_000, 70_000)])
def test_the_wakeup_is_averaged_over_the_exchanges_whose_arrival_was_seen(events: int, unsplit: int) -> None:
    aggregator = _aggregator()
    _feed(
        aggregator, "connections",
        _connection(
            [10_000] * (events - unsplit) + [300] * unsplit, wait=1_000 * (events - unsplit), unsplit=unsplit,
            unsplit_sum=300 * unsplit,
        ),
    )  # fmt: skip
    (row,) = _listed(aggregator)
    assert (row["avg_wakeup_us"], row["avg_wire_us"]) == (1.0, 9.0)


@pytest.mark.parametrize("events", [1, 2**32 + 5, 2**45])
def test_a_server_whose_requests_waits_were_not_looked_for_has_none(events: int) -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5_000], side=Side.SERVER, events=events))
    assert math.isnan(_listed(aggregator)[0]["avg_wakeup_us"])


def test_wire_and_wakeup_are_unknown_where_no_arrival_was_seen() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([5_000] * 3, unsplit=3, unsplit_sum=15_000))
    (row,) = _listed(aggregator)
    assert math.isnan(row["avg_wire_us"])
    assert math.isnan(row["avg_wakeup_us"])
    assert row["avg_latency_us"] == 5.0


def test_parts_are_unknown_where_more_exchanges_are_unsplit_than_can_be_counted() -> None:
    aggregator = _aggregator()
    record = {"wait": 9_000, "unsplit": 2**28 - 1, "unsplit_sum": 10**15}
    _feed(aggregator, "connections", _connection([10**7] * 3, events=2**40, **record))
    (row,) = _listed(aggregator)
    assert math.isnan(row["avg_wire_us"])
    assert math.isnan(row["avg_wakeup_us"])
    assert row["events"] == 2**40
    assert row["max_latency_us"] == 10**4


def test_a_part_of_a_connection_of_which_nothing_is_known_leaves_the_averages_to_the_others() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "closed", _connection([10_000] * 3, events=2**40, unsplit=2**28 - 1, wait=7, end=End.EVICTED))
    _feed(aggregator, "connections", _connection([10_000] * 3, wait=3_000))
    (row,) = _listed(aggregator)
    assert (row["avg_wakeup_us"], row["avg_wire_us"]) == (1.0, 9.0)


def test_the_standard_deviation_is_right_where_squares_need_more_than_64_bits() -> None:
    aggregator = _aggregator()
    latencies = [5_000_000_000, 59_999_999_999, 30_000_000_001] * 5
    _feed(aggregator, "connections", _connection(latencies))
    assert _listed(aggregator)[0]["std_dev_us"] == pytest.approx(np.std(latencies) / 1000)


def test_equal_latencies_have_no_deviation() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([1_234_567] * 10))
    assert _listed(aggregator)[0]["std_dev_us"] == pytest.approx(0, abs=0.001)


def _counters(**values: list[int]) -> Array:
    """One row a CPU, as a per-CPU array of one entry gives it."""
    rows = np.zeros((2, 1), _COUNTERS)
    for name, cpus in values.items():
        rows[name][:, 0] = cpus
    return rows


def test_losses_and_the_summary_are_the_counters_of_all_cpus() -> None:
    aggregator = _aggregator(sample=0.5)
    counters = _counters(
        events=[1, 1], events_lost=[1, 10], connections=[2, 20], closed=[3, 30], closed_lost=[4, 40], evicted=[5, 50],
        cut=[11, 110], older=[12, 120], contended=[6, 60], outliers=[7, 70],
        sampled_out=[8, 80], unanswered=[9, 90], clock=[10, 100], streams=[13, 130],
        held_back=[14, 140],
    )  # fmt: skip
    aggregator.update(_columns("counters", counters))
    figures = aggregator.snapshot()
    assert figures.lost == {
        "events_ring_full": 11,
        "slow_held_back": 154,
        "connections_ring_full": 44,
        "exchanges_evicted": 121,
        "table_contended": 66,
        "outliers": 77,
        "clock": 110,
    }
    assert figures.summary == {
        "measure": None,
        "total_events": 0,
        "event_type_breakdown": {"request": 0, "service": 0},
        "sample": 0.5,
        "sampled_out": 88,
        "in_flight": 0,
        "in_flight_longest_us": None,
        "in_service": 0,
        "streams": 143,
        "unanswered": 99,
        "begun_before": 132,
        "connections_seen": 22,
        "connections_evicted": 55,
    }


def test_before_anything_was_drained_there_is_nothing_and_nothing_is_lost() -> None:
    aggregator = _aggregator()
    figures = aggregator.snapshot()
    assert _table(figures.tables[0]) == []
    assert set(figures.lost.values()) == {0}
    assert [distribution.events for distribution in figures.distributions] == [0] * len(Figure)
    assert aggregator.stream() is None


def _histograms(*cpus: dict[Measure, list[int]]) -> Array:
    rows = np.zeros((len(cpus), len(Measure)), _HISTOGRAM)
    for cpu, measures in enumerate(cpus):
        for measure, values in measures.items():
            rows[cpu, measure]["buckets"] = np.bincount(bucket_of(np.array(values)), minlength=BUCKETS)
    return rows


def _undelivered(*cpus: dict[Side, list[int]]) -> Array:
    rows = np.zeros((len(cpus), len(Side)), _UNDELIVERED)
    for cpu, sides in enumerate(cpus):
        for side, values in sides.items():
            squares = sum(value * value for value in values)
            rows[cpu, side] = (
                len(values), sum(values), min(values), max(values), squares & 0xFFFFFFFF, squares >> 32 & 0xFFFFFFFF,
                squares >> 64,
            )  # fmt: skip
    return rows


def _by_name(figures: Figures) -> dict[str, Any]:
    return {distribution.name: distribution for distribution in figures.distributions}


def test_the_histograms_of_all_cpus_are_added_up() -> None:
    aggregator = _aggregator()
    one = {Measure.FIRST_BYTE: [10_000, 20_000], Measure.WIRE: [9_000], Measure.SERVICE: [5_000]}
    other = {Measure.FIRST_BYTE: [60_000], Measure.WAKEUP: [1_000], Measure.PICKUP: [2_000]}
    for _ in range(2):  # what is read is how it stands, not what came since
        aggregator.update(_columns("histograms", _histograms(one, other)))
    figures = aggregator.snapshot()
    found = _by_name(figures)
    assert {name: d.events for name, d in found.items()} == {
        "request": 3,
        "first_byte": 3,
        "wire": 1,
        "wakeup": 1,
        "transfer": 3,
        "service": 1,
        "reply": 1,
        "pickup": 1,
    }
    assert found["wire"].mean == pytest.approx(9, rel=0.01)
    assert figures.distributions[0].name == "request"
    assert figures.summary["measure"] == "request"
    assert figures.summary["total_events"] == 3
    assert figures.summary["event_type_breakdown"] == {"request": 3, "service": 1}


def test_a_histogram_whose_connections_were_not_drained_yet_still_has_sound_figures() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections")
    aggregator.update(_columns("histograms", _histograms({Measure.FIRST_BYTE: [10_000, 30_000]})))
    request = _by_name(aggregator.snapshot())["request"]
    assert request.min == pytest.approx(10, rel=0.01)
    assert request.mean == pytest.approx(20, rel=0.01)
    assert request.max == pytest.approx(30, rel=0.01)
    assert request.percentiles["p99.9"] == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize(
    ("side", "measure", "name"),
    [(Side.CLIENT, Measure.FIRST_BYTE, "request"), (Side.SERVER, Measure.SERVICE, "service")],
)
def test_the_main_figures_of_a_side_are_exact_whatever_became_of_its_connections(
    side: Side, measure: Measure, name: str
) -> None:
    aggregator = _aggregator(max_closed=1)
    folded, closed, evicted, still_open = [1_001, 70_007], [333_333], [5_000_000_001], [123, 59_999_999_999, 77]
    lost = [17, 4_000_000_003], [40_000_000_009]
    _feed(
        aggregator, "closed",
        _connection(folded, 1, side=side, end=End.CLOSED), _connection(closed, 2, side=side, end=End.CLOSED),
        _connection(evicted, 3, side=side, end=End.EVICTED),
    )  # fmt: skip
    _feed(aggregator, "connections", _connection(still_open, 4, side=side), _connection([9], 5, side=Side(1 - side)))
    aggregator.update(_columns("undelivered", _undelivered({side: lost[0]}, {side: lost[1], Side(1 - side): [10**10]})))
    together = [*folded, *closed, *evicted, *still_open, *lost[0], *lost[1]]
    aggregator.update(_columns("histograms", _histograms({measure: together})))
    for _ in range(2):
        found = _by_name(aggregator.snapshot())[name]
        assert found.events == len(together)
        assert (found.min, found.max) == (min(together) / 1000, max(together) / 1000)
        assert found.mean == pytest.approx(np.mean(together) / 1000, rel=1e-12)
        assert found.std == pytest.approx(np.std(together) / 1000, rel=1e-9)


def test_on_a_machine_that_only_serves_the_main_figures_are_of_services() -> None:
    aggregator = _aggregator()
    aggregator.update(_columns("histograms", _histograms({Measure.SERVICE: [5_000, 6_000]})))
    figures = aggregator.snapshot()
    assert figures.distributions[0].name == "service"
    assert (figures.summary["measure"], figures.summary["total_events"]) == ("service", 2)


def test_every_exchange_of_the_events_mode_is_in_its_distributions() -> None:
    aggregator = _aggregator(mode="events")
    server = {"side": Side.SERVER}
    _feed(aggregator, "events", _event(10_000, wait=1_000), _event(20_000), _event(5_000, wait=9_000, **server))
    _feed(aggregator, "events", _event(30_000, wait=2_000), _event(7_000, **server))
    figures = aggregator.snapshot()
    found = {name: (d.events, d.min, d.mean, d.max) for name, d in _by_name(figures).items()}
    assert found == {
        "request": (3, 10.0, 20.0, 30.0),
        "first_byte": (3, 10.0, 20.0, 30.0),
        "transfer": (3, 0.0, 0.0, 0.0),
        "reply": (2, 0.0, 0.0, 0.0),
        "wire": (2, 9.0, 18.5, 28.0),
        "wakeup": (2, 1.0, 1.5, 2.0),
        "service": (2, 5.0, 6.0, 7.0),
        "pickup": (1, 9.0, 9.0, 9.0),
    }
    assert figures.summary["event_type_breakdown"] == {"request": 3, "service": 2}


def test_in_the_events_mode_what_was_produced_was_delivered_or_lost() -> None:
    aggregator = _aggregator(mode="events")
    aggregator.update(_columns("counters", _counters(events=[3, 2], events_lost=[1, 1])))
    _feed(aggregator, "events", _event(1), _event(2), _event(3, side=Side.SERVER))
    figures = aggregator.snapshot()
    delivered = sum(figures.summary["event_type_breakdown"].values())
    assert figures.summary["produced"] == 5 == delivered + figures.lost["events_ring_full"]


def test_the_events_mode_streams_each_exchange_once_in_order() -> None:
    aggregator = _aggregator(mode="events")
    aggregator.update(_columns("owners", np.array([(7, (b"curl",)), (8, (b"n\xffx",))], _OWNER)))
    _feed(aggregator, "events", _event(10_000, wait=1_500, time=100, srtt_us=3))
    _feed(aggregator, "events", _event(20_000, time=200, pid=8, side=Side.SERVER, remote="fd00::1"))
    stream = aggregator.stream()
    assert stream is not None
    first, second = _table(stream)
    assert first == {
        "time_ns": 100,
        "type": "request",
        "source": "10.0.0.1:40000",
        "destination": "10.0.0.2:80",
        "pid": 7,
        "process": "curl",
        "latency_us": 10.0,
        "wakeup_us": 1.5,
        "first_byte_us": 10.0,
        "wire_us": 8.5,
        "transfer_us": 0.0,
        "bytes": 0,
        "retransmits": 0,
        "srtt_us": 3,
    }
    assert (second["time_ns"], second["type"], second["process"]) == (200, "service", "n\ufffdx")
    assert second["destination"] == "[fd00::1]:80"
    assert math.isnan(second["wakeup_us"])

    _feed(aggregator, "events", _event(30_000, time=300))
    later = aggregator.stream()
    assert later is not None
    assert [row["time_ns"] for row in _table(later)] == [300]


def test_an_interval_without_an_exchange_streams_no_rows_but_the_same_columns() -> None:
    aggregator = _aggregator(mode="events")
    empty = aggregator.stream()
    _feed(aggregator, "events", _event(10_000))
    full = aggregator.stream()
    assert empty is not None
    assert full is not None
    assert _table(empty) == []
    assert [column.name for column in empty.columns] == [column.name for column in full.columns]


def test_tables_that_are_looked_at_later_are_those_of_their_snapshot() -> None:
    aggregator = _aggregator(max_closed=1)
    _feed(aggregator, "connections", _connection(socket=1), _connection(socket=2, pid=8, local_port=2))
    _feed(aggregator, "closed", *(_connection(socket=n, end=End.CLOSED, local_port=n) for n in (3, 4)))
    aggregator.update(_columns("owners", np.array([(7, (b"curl",))], _OWNER)))
    expected, later = _listed(aggregator), aggregator.snapshot()
    aggregator.update(_columns("owners", np.array([(7, (b"again",)), (8, (b"other",))], _OWNER)))
    _feed(aggregator, "connections", _connection([1, 2, 3], socket=1))
    _feed(aggregator, "closed", _connection(socket=2, end=End.CLOSED, local_port=2))
    aggregator.snapshot()
    assert str(_table(later.tables[0])) == str(expected)


def test_each_end_is_news_once_and_what_is_open_is_each_time() -> None:
    aggregator = _aggregator(max_closed=10)
    _feed(aggregator, "connections", _connection(socket=9, local_port=9))
    _feed(aggregator, "closed", *(_connection(socket=n, end=End.CLOSED, local_port=n) for n in (1, 2)))
    first = aggregator.snapshot()
    _feed(aggregator, "closed", _connection(socket=3, end=End.CLOSED, local_port=3))
    second, third = aggregator.snapshot(), aggregator.snapshot()

    def ports(tables: Any) -> list[int]:
        return sorted(int(row["source"].rpartition(":")[2]) for row in _table(tables[0]))

    assert [ports(figures.news) for figures in (first, second, third)] == [[1, 2, 9], [3, 9], [9]]
    assert ports(third.tables) == [1, 2, 3, 9]


def test_a_connection_that_was_evicted_and_came_again_is_news_again_with_all_of_it() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "closed", _connection([5, 6], end=End.EVICTED))
    aggregator.snapshot()
    _feed(aggregator, "connections", _connection([7]))
    news = [aggregator.snapshot().news for _ in range(2)]
    _feed(aggregator, "connections")
    _feed(aggregator, "closed", _connection([7, 8], end=End.CLOSED))
    news += [aggregator.snapshot().news for _ in range(2)]
    assert [[row["events"] for row in _table((tables or ())[0])] for tables in news] == [[3], [3], [4], []]


_HANDED, _GOES_ON = 1 << 63, 1 << 62


def _under_way(start: int, lasted: int = 0, **connection: Any) -> Array:
    row = _connection(**connection)
    row["connection"]["start"], row["lasted"] = start, lasted
    return row


def test_a_response_that_goes_on_counts_as_far_as_it_has_come() -> None:
    aggregator = _aggregator()
    whole = [10_000, 30_000 + 20_000]
    lasts = 20_000 | 3 << 36  # and three gaps
    record = _under_way(_HANDED | _GOES_ON | 30_000, lasts, latencies=[10_000], wait=5_000)
    _feed(aggregator, "connections", record)
    aggregator.update(_columns("histograms", _histograms({Measure.FIRST_BYTE: [10_000, 30_000]})))
    for _ in range(2):  # it is not counted twice
        figures = aggregator.snapshot()
        (row,) = _table(figures.tables[0])
        assert (row["events"], row["min_latency_us"], row["max_latency_us"]) == (2, 10.0, 50.0)
        assert row["avg_latency_us"] == sum(whole) / 2000
        assert row["std_dev_us"] == pytest.approx(np.std(whole) / 1000)
        assert (row["avg_first_byte_us"], row["avg_transfer_us"]) == (20.0, 10.0)
        assert row["avg_wire_us"] + row["avg_wakeup_us"] + row["avg_transfer_us"] == row["avg_latency_us"]
        found = _by_name(figures)
        assert [found[name].events for name in ("request", "first_byte", "transfer")] == [2, 2, 2]
        assert (found["request"].mean, found["request"].max) == (30.0, 50.0)
        assert found["first_byte"].mean == pytest.approx(20, rel=0.01)
        assert found["transfer"].mean == pytest.approx(10, rel=0.01)


def test_requests_that_are_over_are_those_of_one_part_and_those_of_several() -> None:
    aggregator = _aggregator()
    aggregator.update(_columns("longer", _longer({Longer.FIRST_BYTE: [30_000], Longer.REQUEST: [90_000_000],
                                                  Longer.TRANSFER: [89_970_000], Longer.REPLY: [7_000]})))  # fmt: skip
    begun = {Measure.FIRST_BYTE: [10_000, 30_000, 30_000], Measure.SERVICE: [4_000, 4_000]}
    aggregator.update(_columns("histograms", _histograms(begun)))
    found = _by_name(aggregator.snapshot())
    assert {name: d.events for name, d in found.items() if d.events} == {
        "request": 3, "first_byte": 3, "transfer": 3, "service": 2, "reply": 2,
    }  # fmt: skip
    assert found["request"].max == pytest.approx(90_000, rel=0.01)
    assert found["request"].percentiles["p50"] == pytest.approx(30, rel=0.01)
    assert found["transfer"].percentiles["p50"] == 0
    assert found["reply"].max == pytest.approx(7, rel=0.01)


def test_a_response_that_goes_on_for_too_long_is_a_stream_and_counts_with_its_first_byte() -> None:
    aggregator = _aggregator(outlier=Seconds(1.0))
    record = _under_way(_HANDED | _GOES_ON | 30_000, 10**9, latencies=[])
    _feed(aggregator, "connections", record, outlier=Seconds(1.0))
    (row,) = _listed(aggregator)
    assert (row["events"], row["max_latency_us"], row["avg_transfer_us"]) == (1, 30.0, 0.0)


def test_with_the_first_byte_as_the_main_figure_rows_are_of_first_bytes_and_know_the_transfer() -> None:
    aggregator = _aggregator(main="first_byte")
    record = _under_way(_HANDED | _GOES_ON | 30_000, 20_000, latencies=[], wait=1_000)
    _feed(aggregator, "connections", record, main="first_byte")
    aggregator.update(_columns("histograms", _histograms({Measure.FIRST_BYTE: [30_000]})))
    figures = aggregator.snapshot()
    (row,) = _table(figures.tables[0])
    assert (row["avg_latency_us"], row["avg_first_byte_us"], row["avg_transfer_us"]) == (30.0, 30.0, 20.0)
    assert row["avg_wire_us"] + row["avg_wakeup_us"] == row["avg_first_byte_us"]
    assert figures.summary["measure"] == figures.distributions[0].name == "first_byte"


def test_a_request_without_a_response_is_in_flight_since_it_began() -> None:
    aggregator = _aggregator()
    records = [
        _under_way(5_000, latencies=[], socket=1), _under_way(2_000, latencies=[7_000], socket=2),
        _under_way(3_000, latencies=[], socket=3, side=Side.SERVER), _under_way(2, latencies=[], socket=4),
    ]  # fmt: skip
    aggregator.update(_columns("connections", _sets(np.concatenate(records)), taken=9_000))
    figures = aggregator.snapshot()
    rows = _table(figures.tables[0])
    assert [(row["events"], row["side"], row["waiting_us"]) for row in rows] == [
        (1, "client", 7.0), (0, "client", 4.0), (0, "server", 6.0),
    ]  # fmt: skip
    assert all(math.isnan(rows[1][f"{each}_latency_us"]) for each in ("min", "avg", "max"))
    summary = figures.summary
    assert (summary["in_flight"], summary["in_flight_longest_us"], summary["in_service"]) == (2, 7.0, 1)


def test_what_goes_on_when_the_run_ends_is_streamed_then() -> None:
    aggregator = _aggregator(mode="events")
    began = 5 << 48 | 0x1234_5678_9ABC  # the kernel keeps the lower 48 bits
    record = _under_way(_HANDED | _GOES_ON | 30_000 | (began & 0xFFFF) << 36, 20_000, latencies=[])
    record["connection"]["used"] = began >> 16 & 0xFFFF_FFFF
    columns = _columns("connections", _sets(record), taken=began + 10**9)
    aggregator.update(columns)
    assert aggregator.snapshot().summary["event_type_breakdown"]["request"] == 1
    aggregator.end()
    aggregator.update(columns)  # what is there is read once more
    stream = aggregator.stream()
    assert stream is not None
    (event,) = _table(stream)
    assert (event["time_ns"], event["latency_us"], event["transfer_us"]) == (began + 20_000, 50.0, 20.0)
    figures = aggregator.snapshot()
    assert figures.summary["event_type_breakdown"]["request"] == figures.summary["produced"] == 1


def _longer(rows: dict[Longer, list[int]]) -> Array:
    made = np.zeros(len(Longer), _HISTOGRAM)
    for row, values in rows.items():
        made[row]["buckets"] = np.bincount(bucket_of(np.array(values)), minlength=BUCKETS)
    return made


def test_no_part_is_longer_than_the_longest_request() -> None:
    aggregator = _aggregator()
    _feed(aggregator, "connections", _connection([1 << 20], wait=1 << 20))  # the middle of its bucket is above it
    measures = (Measure.FIRST_BYTE, Measure.WIRE, Measure.WAKEUP)
    aggregator.update(_columns("histograms", _histograms({measure: [1 << 20] for measure in measures})))
    found = _by_name(aggregator.snapshot())
    for name in ("first_byte", "wire", "wakeup"):
        part = found[name]
        assert part.min == part.mean == part.max == part.percentiles["p99"] == found["request"].max == 1048.576
