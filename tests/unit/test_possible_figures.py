"""Whatever the kernel's records say, no figure is impossible: 0 <= part <= whole <= lifetime, everywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from probekit import Column, Columns, Distribution, Figures, Table
from probekit.host import Machine
from probekit.model import Array
from probekit_conntrack.aggregate import ConntrackAggregator
from probekit_conntrack.config import ConntrackConfig
from probekit_conntrack.rows import ROW as TRACKED
from probekit_conntrack.values import Closer, Origin, Side, State
from probekit_conntrack.values import End as Ending
from probekit_latency.aggregate import LatencyAggregator
from probekit_latency.config import LatencyConfig
from probekit_latency.values import UNSEEN, End

SECOND = 10**9
BEGAN, TAKEN = 10**15, 10**15 + 60 * SECOND  # a run of a minute, on a machine that was started eleven days ago
RUN_US = (TAKEN - BEGAN) / 1e3
LONGEST = 60 * SECOND


def numbers(table: Table) -> dict[str, Array]:
    return {column.name: column.values for column in table.columns if column.values.dtype.kind in "iuf"}


def assert_possible(figures: Figures, longest_us: float) -> None:
    """No number below 0 or beyond all bounds, no time longer than the run or, of rows, than a life."""
    for table in figures.tables:
        for name, values in numbers(table).items():
            known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
            assert (known >= 0).all(), (table.name, name, known)
            assert np.isfinite(known).all(), (table.name, name, known)
            if name.endswith("_us") and name not in ("idle_us", "srtt_us", "min_rtt_us"):  # those are the kernel's
                assert (known <= longest_us).all(), (table.name, name, known)
    for distribution in figures.distributions:
        assert_ordered(distribution, longest_us)
    assert all(loss >= 0 for loss in figures.lost.values())


def assert_ordered(distribution: Distribution, longest_us: float) -> None:
    if not distribution.events:
        return
    assert distribution.min is not None
    assert distribution.max is not None
    assert distribution.mean is not None
    assert distribution.std is not None
    steps = [0, distribution.min, *distribution.percentiles.values(), distribution.max, longest_us * 1.01]
    assert steps == sorted(steps), distribution
    assert nearly(distribution.min, distribution.mean, distribution.max)
    assert 0 <= distribution.std <= (distribution.max - distribution.min) * (1 + 1e-9) + 1e-3


def nearly(*values: float) -> bool:
    """In this order, but for what floating point adds."""
    known = [value for value in values if not math.isnan(value)]
    return all(a <= b * (1 + 1e-9) + 1e-3 for a, b in itertools.pairwise(known))


def listed(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(column.values.tolist() for column in table.columns), strict=True)
    ]


TIMES = st.one_of(
    st.just(0),
    st.integers(1, 2**64 - 1),
    st.integers(BEGAN, TAKEN),
    st.sampled_from([1, BEGAN - 1, BEGAN, BEGAN + 5, BEGAN + 9, TAKEN, TAKEN + 40, 2**63]),
)
SPANS = st.one_of(st.just(0), st.integers(0, 2**64 - 1), st.integers(0, 60 * SECOND))
WORDS = st.one_of(st.just(0), st.integers(0, 2**32 - 1), st.integers(0, 1000))


@st.composite
def tracked(draw: DrawFn) -> Array:
    """A connection as the kernel might never write it."""
    row = np.zeros(1, TRACKED)
    for name in ("began", "established", "accepted", "ended", "changed"):
        row[name] = draw(TIMES)
    row["handshake"] = draw(SPANS)
    row["dwell"] = draw(st.lists(SPANS, min_size=12, max_size=12))
    for name in ("idle", "peer_idle", "data_segments_in", "data_segments_out", "srtt_us"):
        row[name] = draw(WORDS)
    for name, kind in (("side", Side), ("origin", Origin), ("state", State), ("closer", Closer), ("end", Ending)):
        row[name] = draw(st.sampled_from(list(kind)))
    row["time_wait"] = draw(st.integers(0, 1))
    row["socket"] = row["id"] = draw(st.integers(1, 2**40))
    row["remote_port"] = draw(st.integers(1, 2))
    return row


def columns(source: str, rows: Iterable[Array], kind: np.dtype[Any], taken: int) -> Columns:
    together = np.concatenate([np.zeros(0, kind), *rows])
    return Columns(source, {name: together[name] for name in kind.names or ()}, taken)


@settings(max_examples=150, deadline=None)
@given(st.lists(tracked(), max_size=8), st.lists(tracked(), max_size=4), st.booleans(), st.booleans())
def test_connections_have_possible_figures(closed: list[Array], still: list[Array], taken: bool, known: bool) -> None:
    tracker = ConntrackAggregator(ConntrackConfig(max_closed=5), BEGAN, Machine())
    now = TAKEN if taken else BEGAN  # looked at before any time has gone by
    tracker.update(columns("closed", closed, TRACKED, now))
    tracker.update(columns("connections", still, TRACKED, now))
    if known:
        tracker.join({"latency": requests(closed)})
    figures = tracker.snapshot()
    assert_possible(figures, TAKEN / 1e3)  # of a server, a handshake may have begun before the run
    for row in listed(figures.tables[0]):
        life = row["lifetime_us"]
        assert nearly(0, life, RUN_US)
        for name in ("handshake_us", "idle_us") if row["side"] == "client" and not row["older"] else ():
            assert nearly(row[name], life)
        for state in State:
            assert nearly(row.get(f"{state.name.lower()}_us", 0), life)
        assert nearly(row["accept_wait_us"], RUN_US)
    for row in listed(figures.tables[1]):
        assert nearly(row["lifetime_p50_us"], row["lifetime_p90_us"], row["lifetime_p99_us"], RUN_US)
        assert nearly(row["open_avg"], row["open_max"])
        assert nearly(row["idle_share"], 1)


def requests(rows: list[Array]) -> Figures:
    ids = [f"{int(row['id'][0]) >> 32:08x}-{int(row['id'][0]) & 0xFFFFFFFF:08x}" for row in rows]
    table = Table(
        "connections",
        (
            Column("id", np.array(ids, np.str_)),
            Column("side", np.array(["client"] * len(ids), np.str_)),
            Column("events", np.full(len(ids), 7)),
            Column("avg_latency_us", np.full(len(ids), 1e9)),
        ),
        np.array(ids, np.str_),
    )
    return Figures({}, (table,))


EXCHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, LONGEST), st.just(LONGEST)), st.floats(0, 1), st.booleans(),
        st.one_of(st.just(0.0), st.floats(0, 1)),
    ),
    max_size=12,
)  # fmt: skip
WRITTEN = (
    "transferred", "min", "max", "sum", "square_low", "square_high", "events", "wait", "unsplit_sum", "unsplit",
    "retransmits", "id", "sent", "received",
)  # fmt: skip
"""The order in which an exchange changes a record."""


def record(exchanges: list[tuple[int, float, bool, float]]) -> dict[str, int]:
    """A connection's figures after exchanges.

    Args:
        exchanges: Latency, the part of its first byte that is wakeup, whether that was seen, and the part of the
            latency that is transfer.
    """
    latencies = [latency for latency, *_ in exchanges]
    squares = sum(latency**2 for latency in latencies)
    firsts = [latency - int(latency * transfer) for latency, _, _, transfer in exchanges]
    unsplit = [first for first, (_, _, split, _) in zip(firsts, exchanges, strict=True) if not split]
    return {
        "min": min(latencies, default=1 << 62), "max": max(latencies, default=0), "sum": sum(latencies),
        "square_low": squares & (1 << 64) - 1, "square_high": squares >> 64, "events": len(exchanges),
        "wait": sum(int(first * part) for first, (_, part, split, _) in zip(firsts, exchanges, strict=True) if split),
        "transferred": sum(latencies) - sum(firsts), "unsplit_sum": sum(unsplit), "unsplit": len(unsplit),
    }  # fmt: skip


@st.composite
def measured(draw: DrawFn) -> dict[str, int]:
    """A connection's record, as it is or in the middle of an exchange."""
    exchanges = draw(EXCHANGES)
    after, before = record(exchanges), record(exchanges[:-1])
    done = draw(st.integers(0, len(WRITTEN)))
    values = {name: (after if place < done else before).get(name, 0) for place, name in enumerate(WRITTEN)}
    values["side"] = draw(st.integers(0, 1))
    values["end"], values["origin"] = draw(st.sampled_from(list(End))), draw(st.integers(1, 2))
    values["socket"] = draw(st.integers(1, 9))
    values["since"], values["waited"] = draw(TIMES), draw(SPANS)
    values["first"] = draw(st.one_of(st.just(UNSEEN), st.integers(0, LONGEST)))
    values["lasts"] = draw(st.integers(0, LONGEST - values["first"] % UNSEEN))  # more is no exchange, says decode
    values["gaps"], values["no_room"] = draw(st.integers(0, 2**28 - 1)), draw(st.integers(0, 2**28 - 1))
    values["moment"] = draw(TIMES) % 2**48
    return values


def decoded(source: str, records: list[dict[str, int]]) -> Columns:
    names = (
        *WRITTEN, "side", "end", "origin", "socket", "pid", "srtt_us", "local_port", "remote_port", "since", "first",
        "lasts", "waited", "gaps", "no_room", "moment", "min_rtt_us", "sent_before", "received_before",
        "retransmits_before",
    )  # fmt: skip
    values: dict[str, Any] = {
        name: np.array(
            [one.get(name, 0) for one in records], np.uint8 if name in ("side", "end", "origin") else np.uint64
        )
        for name in names
    }
    values["squares"] = values.pop("square_high") * 2.0**64 + values.pop("square_low")
    values["local"] = values["remote"] = np.zeros((len(records), 16), np.uint8)
    return Columns(source, values, TAKEN)


@settings(max_examples=150, deadline=None)
@given(st.lists(measured(), max_size=8), st.lists(measured(), max_size=4), st.sampled_from(["request", "first_byte"]))
def test_exchanges_have_possible_figures(
    closed: list[dict[str, int]], still: list[dict[str, int]], main: Literal["request", "first_byte"]
) -> None:
    aggregator = LatencyAggregator(LatencyConfig(max_closed=3, main=main), BEGAN)
    aggregator.update(decoded("closed", [{**one, "first": UNSEEN, "since": 0, "lasts": 0} for one in closed]))
    aggregator.update(decoded("connections", still))
    figures = aggregator.snapshot()
    assert_possible(figures, LONGEST / 1e3 * (1 + 1e-9))
    for row in listed(figures.tables[0]):
        least, average, most = (row[f"{name}_latency_us"] for name in ("min", "avg", "max"))
        assert nearly(0, least, average, most)
        assert nearly(0, row["std_dev_us"], (most - least) / 2 + 1)
        assert nearly(0, row["waiting_us"], RUN_US)
        if row["side"] == "client" and row["events"]:
            whole = row["avg_first_byte_us"] + (row["avg_transfer_us"] if main == "request" else 0)
            assert nearly(whole, average)
            assert nearly(average, whole)
        assert row["side"] == "server" or nearly(row["avg_wire_us"], most)
        assert row["side"] == "server" or nearly(row["avg_wakeup_us"], most)
        assert row["side"] == "client" or math.isnan(row["avg_wire_us"])


EVENTS = st.tuples(
    st.integers(0, LONGEST), st.one_of(st.just(UNSEEN), st.integers(0, LONGEST), st.integers(0, 2**64 - 1)),
    st.integers(0, 1), st.integers(0, LONGEST),
).filter(lambda event: event[0] + event[3] <= LONGEST)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=30))
def test_streamed_events_have_possible_figures(exchanges: list[tuple[int, int, int, int]]) -> None:
    aggregator = LatencyAggregator(LatencyConfig(mode="events"))
    latency, wait, side, transfer = (np.array(values, np.uint64) for values in zip(*exchanges, strict=True))
    nothing = np.zeros(len(side), np.uint64)
    addresses = np.zeros((len(side), 16), np.uint8)
    aggregator.update(
        Columns(
            "events",
            {
                "time": nothing, "latency": latency, "transfer": transfer, "wait": wait,
                "side": side.astype(np.uint8), "local": addresses, "remote": addresses, "local_port": nothing,
                "remote_port": nothing, "pid": nothing, "srtt_us": nothing, "bytes": nothing, "retransmits": nothing,
            },
            TAKEN,
        )
    )  # fmt: skip
    figures = aggregator.snapshot()
    assert_possible(figures, 2**36 / 1e3)
    stream = aggregator.stream()
    assert stream is not None
    for row in listed(stream):
        assert row["type"] == "service" or nearly(row["wakeup_us"], row["latency_us"])
        assert math.isnan(row["wakeup_us"]) or 0 <= row["wakeup_us"] < 2**36 / 1e3
