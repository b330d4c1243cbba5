from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit import Column, Columns, Figures, Table
from probekit.errors import InputError
from probekit.host import Machine
from probekit.model import Array
from probekit_conntrack import findings as rules
from probekit_conntrack.aggregate import ConntrackAggregator
from probekit_conntrack.attach import namespace_number
from probekit_conntrack.cgroups import Cgroups
from probekit_conntrack.config import ConntrackConfig
from probekit_conntrack.findings import Evidence, findings
from probekit_conntrack.netfilter import Netfilter
from probekit_conntrack.pools import NO_REQUESTS, Moment, Pools, Requests
from probekit_conntrack.rows import JIFFY_US, ROW, apply_late_resets, most_requests
from probekit_conntrack.values import UNKNOWN, Closer, End, Origin, Side, State

SECOND = 10**9
MOMENT = Moment(0, 100 * SECOND)


def connections(count: int = 1, **values: Any) -> Array:
    """Clients' connections that lived from second 1 to 2, with a request and its response."""
    rows = np.zeros(count, ROW)
    first = {
        "socket": 1, "id": 1, "began": SECOND, "established": SECOND + 1000, "handshake": 1000, "ended": 2 * SECOND,
        "changed": 2 * SECOND, "netns": 7, "pid": 5, "peer_idle": UNKNOWN, "data_segments_out": 1,
        "data_segments_in": 1, "side": Side.CLIENT, "origin": Origin.BIRTH, "state": State.CLOSE, "end": End.FIN,
        "closer": Closer.LOCAL, "command": b"app",
    }  # fmt: skip
    for name, value in {**first, **values}.items():
        rows[name] = value
    for side, last in (("local", 1), ("remote", 2)):
        rows[side][:, 10:] = [255, 255, 10, 0, 0, last]
    mine, peers = ("remote_port", "local_port") if values.get("side") == Side.SERVER else ("local_port", "remote_port")
    rows[mine], rows[peers] = values.get(mine, 20_000 + np.arange(count)), 80
    if count > 1 and "socket" not in values:
        rows["socket"] = rows["id"] = 1 + np.arange(count)
    return rows


def opened(count: int = 1, **values: Any) -> Array:
    return connections(count, **{"ended": 0, "state": State.ESTABLISHED, "end": End.OPEN, "closer": 0, **values})


def requests(rows: Array, counts: float, busy_us: float) -> Requests:
    return Requests(rows["id"], rows["side"], np.full(len(rows), counts), np.full(len(rows), busy_us))


def found(
    *rows: Array, known: Requests = NO_REQUESTS, ports: int = 28_232, netfilter: Netfilter | None = None
) -> list[str]:
    pools = Pools.of(np.concatenate([np.zeros(0, ROW), *rows]), MOMENT, known)
    tables = {7: netfilter} if netfilter else {}
    return [finding.name for finding in findings(Evidence(pools, {7: ports}, tables))]


@pytest.mark.parametrize(
    ("single", "several", "is_found"), [(20, 0, True), (19, 0, False), (27, 3, True), (26, 4, False)]
)
def test_new_connections_for_each_request(single: int, several: int, is_found: bool) -> None:
    rows = connections(single), connections(several, data_segments_out=9, data_segments_in=9)
    assert found(*rows) == ["new connection per request"] * is_found


@pytest.mark.parametrize(
    "values",
    [{"ended": 0}, {"data_segments_in": 0}, {"origin": Origin.FOUND}, {"data_segments_out": 2, "data_segments_in": 2}],
)
def test_connections_that_say_nothing_of_requests(values: dict[str, int]) -> None:
    assert found(connections(40, **values)) == []


def test_what_another_probe_counted_is_taken_before_what_segments_say() -> None:
    rows = connections(40, data_segments_out=9, data_segments_in=9)
    assert found(rows) == []
    assert found(rows, known=requests(rows, 1, 0)) == ["new connection per request"]
    small = connections(40)
    assert found(small, known=requests(small, 9, 0)) == []


@pytest.mark.parametrize(("share", "is_found"), [(0.91, True), (0.89, False)])
def test_a_pool_whose_connections_are_always_busy(share: float, is_found: bool) -> None:
    rows = opened(10, established=10 * SECOND)
    assert found(rows, known=requests(rows, 50, share * 90e6)) == ["pool too small"] * is_found


def test_a_pool_is_looked_at_while_it_is_in_use_only() -> None:
    rows = opened(10, established=10 * SECOND, idle=round(80e6 / JIFFY_US))  # nothing since second 20
    assert found(rows, known=requests(rows, 50, 0.95 * 10e6)) == ["pool too small"]


@pytest.mark.parametrize(("count", "each"), [(1, 50), (10, 9)])
def test_one_connection_or_few_requests_are_no_pool(count: int, each: int) -> None:
    rows = opened(count, established=10 * SECOND)
    assert found(rows, known=requests(rows, each, 90e6)) == []


def test_connections_one_after_the_other_are_no_pool() -> None:
    first = connections(1, established=10 * SECOND, ended=20 * SECOND, id=101)
    second = connections(1, established=30 * SECOND, ended=40 * SECOND, id=102)
    rows = np.concatenate([first, second])
    assert found(rows, known=requests(rows, 50, 10e6)) == []


@pytest.mark.parametrize(
    ("count", "wait_ms", "is_found"), [(20, 20, True), (20, 19, False), (19, 500, False)]
)  # fmt: skip
def test_connections_that_wait_to_be_accepted(count: int, wait_ms: int, is_found: bool) -> None:
    rows = connections(count, side=Side.SERVER, accepted=SECOND + 1000 + wait_ms * 10**6)
    assert found(rows) == ["server's pool too small"] * is_found


def test_connections_that_nobody_saw_accepted_say_nothing() -> None:
    assert found(connections(40, side=Side.SERVER, established=0)) == []
    assert found(connections(40, side=Side.SERVER)) == []


@pytest.mark.parametrize(
    ("cut", "others", "idle_us", "is_found"),
    [(3, 27, 1e6, True), (2, 0, 9e6, False), (3, 28, 9e6, False), (9, 0, 0.9e6, False)],
)
def test_idle_connections_that_the_peer_closes(cut: int, others: int, idle_us: float, is_found: bool) -> None:
    used = {"data_segments_out": 9, "data_segments_in": 9}
    rows = (
        connections(cut, closer=Closer.REMOTE, peer_idle=-(-idle_us // JIFFY_US), **used),
        connections(others, **used),
    )
    assert found(*rows) == ["idle connections cut by the peer"] * is_found


@pytest.mark.parametrize(
    ("waiting", "still_open", "is_found"), [(80, 0, True), (79, 0, False), (41, 39, True), (40, 40, False)]
)
def test_ports_that_are_nearly_exhausted(waiting: int, still_open: int, is_found: bool) -> None:
    few = {"data_segments_out": 9, "data_segments_in": 9}
    rows = connections(waiting, time_wait=1, ended=50 * SECOND, **few), opened(still_open, **few)
    assert found(*rows, ports=100) == ["port exhaustion near"] * is_found


def test_ports_are_free_again_after_a_minute() -> None:
    few = {"data_segments_out": 9, "data_segments_in": 9}
    assert found(connections(100, time_wait=1, ended=39 * SECOND, **few), ports=100) == []


def test_a_connect_that_found_no_port_is_exhaustion() -> None:
    few = {"data_segments_out": 9, "data_segments_in": 9}
    failed = connections(1, established=0, end=End.FAILED, error=errno.EADDRNOTAVAIL, closer=0)
    assert found(connections(10, time_wait=1, ended=50 * SECOND, **few), failed, ports=100) == ["port exhaustion near"]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (Netfilter(80, 100), ["netfilter's table nearly full"]),
        (Netfilter(79, 100), []),
        (Netfilter(1, 100, counters={"insert_failed": 0, "search_restart": 5}), []),
        (Netfilter(1, 100, counters={"early_drop": 1}), ["netfilter's table lost connections"]),
    ],
)
def test_netfilters_table(table: Netfilter, names: list[str]) -> None:
    assert found(netfilter=table) == names


def test_thresholds_are_those_of_the_documentation() -> None:
    assert (rules.ENOUGH, rules.NEARLY_ALL, rules.SETTLED_REQUESTS) == (20, 0.9, 10)
    assert (rules.CUT_TIMES, rules.CUT_SHARE, rules.CUT_IDLE_US, rules.NEAR) == (3, 0.1, 1e6, 0.8)


def test_the_bound_on_requests_is_the_smaller_number_of_segments() -> None:
    rows = connections(3)
    rows["data_segments_out"], rows["data_segments_in"] = [0, 5, 9], [4, 1, 7]
    assert most_requests(rows).tolist() == [0, 1, 7]


def test_a_late_reset_belongs_to_the_last_connection_of_its_socket_that_had_ended() -> None:
    rows = connections(3, socket=9, closer=Closer.NOBODY, time_wait=1)
    rows["socket"], rows["ended"] = 9, [10, 20, 30]
    apply_late_resets(rows, np.array([9, 8]), np.array([25, 25]))
    assert rows["end"].tolist() == [End.FIN, End.RST_SENT, End.FIN]
    assert rows["closer"].tolist() == [Closer.NOBODY, Closer.LOCAL, Closer.NOBODY]
    assert rows["time_wait"].tolist() == [1, 0, 1]


def test_concurrency_is_the_most_at_once_and_its_mean_over_the_run() -> None:
    rows = connections(4)
    rows["established"] = np.array([0, 10, 20, 90]) * SECOND + 1
    rows["ended"] = [30 * SECOND, 20 * SECOND + 1, 30 * SECOND, 0]
    rows["origin"] = Origin.FOUND
    most, mean = Pools.of(rows, MOMENT, NO_REQUESTS).concurrency()
    assert most.tolist() == [2]  # the third begins as the second ends
    assert mean[0] == pytest.approx(0.6)


def test_percentiles_of_services_are_numpys() -> None:
    rows = connections(101)
    rows["command"][:50] = b"other"
    values = np.random.default_rng(1).exponential(1, 101)
    pools = Pools.of(rows, MOMENT, NO_REQUESTS)
    chosen = np.ones(101, bool)
    for percent in (0, 50, 90, 99):
        expected = {b"other": np.percentile(values[:50], percent), b"app": np.percentile(values[50:], percent)}
        result = dict(
            zip(pools.services["command"].tolist(), pools.percentile(values, chosen, percent).tolist(), strict=True)
        )
        assert result == pytest.approx(expected)


def aggregator(began: int = 0, **options: Any) -> ConntrackAggregator:
    return ConntrackAggregator(ConntrackConfig(**options), began, Machine())


def feed(to: ConntrackAggregator, source: str, rows: Array, taken: int = 100 * SECOND) -> None:
    to.update(Columns(source, {name: rows[name] for name in rows.dtype.names or ()}, taken))


def listed(table: Table) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(column.values.tolist() for column in table.columns), strict=True)
    ]


def count(to: ConntrackAggregator, **values: int) -> None:
    to.update(Columns("counters", {name: np.array([value]) for name, value in values.items()}))


def test_closed_and_open_add_up_to_what_was_opened() -> None:
    tracker = aggregator()
    feed(tracker, "connections", np.concatenate([opened(3), connections(2)]))
    feed(tracker, "closed", connections(5, began=5))
    count(tracker, opened_active=10, handed_over=5)
    summary = tracker.snapshot().summary
    assert (summary["opened"], summary["closed"], summary["still_open"]) == (10, 7, 3)
    assert summary["ends"]["fin"] == 7


def test_a_connection_that_left_while_the_table_was_read_is_listed_once() -> None:
    tracker = aggregator()
    feed(tracker, "connections", opened(1))
    feed(tracker, "closed", connections(1))
    count(tracker, opened_active=1, handed_over=1)
    figures = tracker.snapshot()
    assert (figures.summary["still_open"], len(figures.tables[0].key)) == (0, 1)


def test_what_is_not_listed_any_more_is_still_counted() -> None:
    tracker = aggregator(max_closed=10)
    for _ in range(3):
        feed(tracker, "closed", connections(20))
    feed(tracker, "closed", connections(7, end=End.RST_SENT))
    count(tracker, opened_active=67, handed_over=67)
    figures = tracker.snapshot()
    connections_table, services = figures.tables[:2]
    assert len(connections_table.key) == 10
    assert {name: n for name, n in figures.summary["ends"].items() if n} == {"fin": 60, "rst_sent": 7}
    by_name = {column.name: column.values.tolist() for column in services.columns}
    assert (by_name["closed"], by_name["opened"]) == ([67], [67])


def test_a_late_reset_changes_how_a_closed_connection_ended() -> None:
    tracker = aggregator()
    feed(tracker, "closed", connections(1))
    feed(tracker, "late", np.array([(1, 3 * SECOND)], [("socket", "u8"), ("time", "u8")]))
    assert tracker.snapshot().summary["ends"]["rst_sent"] == 1


@pytest.mark.parametrize("boot", [0, 10**14, 2**62])
def test_times_are_those_of_the_run_and_of_what_was_taken_whatever_clock_the_process_has(boot: int) -> None:
    tracker = aggregator(began=boot + 10 * SECOND)
    early = {"began": boot + 11 * SECOND, "established": boot + 12 * SECOND}
    feed(tracker, "closed", connections(3, **early, ended=boot + 15 * SECOND), taken=boot + 20 * SECOND)
    feed(tracker, "connections", opened(1, **early, changed=boot + 12 * SECOND), taken=boot + 30 * SECOND)
    table, services, _, _, over_time = tracker.snapshot().tables
    assert listed(table)[0]["lifetime_us"] == 19e6
    assert listed(table)[0]["established_us"] == 18e6
    (service,) = listed(services)
    assert service["open_max"] == 4
    assert service["open_avg"] == pytest.approx((3 * 3 + 18) / 20)
    assert service["opened_per_s"] == pytest.approx(4 / 20)
    assert service["churn_per_s"] == pytest.approx(4 / 20 / service["open_avg"])
    slots = listed(over_time)
    assert sum(slot["opened"] for slot in slots) == 4
    assert slots[-1]["until_s"] == 20
    assert slots[-1]["open"] == 1


@pytest.mark.parametrize(
    ("times", "waited"),
    [
        ({"accepted": 3 * SECOND}, 2e6 - 1),
        ({"accepted": 0}, None),
        ({"accepted": 3 * SECOND, "established": 0}, None),  # Fast Open, and a reset instead of the last ACK
        ({"accepted": SECOND + 5, "established": SECOND + 9}, None),  # Fast Open, and the ACK came late
    ],
)
def test_a_connection_waits_to_be_accepted_from_when_it_is_established(
    times: dict[str, int], waited: float | None
) -> None:
    tracker = aggregator()
    feed(tracker, "closed", connections(30, side=Side.SERVER, **times))
    figures = tracker.snapshot()
    waits = {None if np.isnan(row["accept_wait_us"]) else row["accept_wait_us"] for row in listed(figures.tables[0])}
    assert waits == {waited}
    (distribution,) = (d for d in figures.distributions if d.name == "accept_wait")
    assert distribution.events == (30 if waited else 0)
    assert [row["finding"] for row in listed(figures.tables[2])] == ["server's pool too small"] * bool(waited)


def test_nothing_is_said_of_handshakes_that_are_not_known() -> None:
    tracker = aggregator()
    feed(
        tracker,
        "closed",
        np.concatenate([connections(20, handshake=0), connections(10, handshake=9000, established=SECOND + 9000)]),
    )
    figures = tracker.snapshot()
    assert figures.distributions[0].events == 10
    (finding,) = listed(figures.tables[2])
    assert "one request each, and a handshake took 0.009 ms (median): keep" in finding["text"]
    assert listed(figures.tables[1])[0]["handshake_p50_us"] == 9
    tracker = aggregator()
    feed(tracker, "closed", connections(20, handshake=0))
    (finding,) = listed(tracker.snapshot().tables[2])
    assert "20 of 20 connections carried one request each: keep" in finding["text"]


def test_requests_are_joined_by_id_and_side() -> None:
    tracker = aggregator()
    both = np.concatenate(
        [connections(1, id=0xA_0000000B), connections(1, id=0xA_0000000B, side=Side.SERVER, socket=2)]
    )
    feed(tracker, "closed", both)
    table = Table(
        "exchanges",
        (
            Column("id", np.array(["0000000a-0000000b", "0000000a-0000000b", ""])),
            Column("side", np.array(["client", "client", "server"])),
            Column("events", np.array([3, 4, 9])),
            Column("avg_latency_us", np.array([10.0, 20.0, np.nan])),
        ),
        np.array(["x", "y", "z"]),
    )
    tracker.join({"any": Figures({}, (table,)), "other": Figures({})})
    columns = {column.name: column.values.tolist() for column in tracker.snapshot().tables[0].columns}
    assert dict(zip(columns["side"], columns["requests"], strict=True)) == {
        "client": 7,
        "server": pytest.approx(np.nan, nan_ok=True),
    }


def _exchanges(*rows: tuple[str, int]) -> Table:
    ids, events = zip(*rows, strict=True)
    columns = (
        Column("id", np.array(ids, np.str_)), Column("side", np.array(["client"] * len(ids), np.str_)),
        Column("events", np.array(events, np.int64)), Column("avg_latency_us", np.full(len(ids), 10.0)),
    )  # fmt: skip
    return Table("exchanges", columns, np.array(ids, np.str_))


def test_requests_of_what_ended_are_taken_when_they_are_news() -> None:
    tracker = aggregator(max_closed=2)
    feed(tracker, "closed", connections(2, id=[1, 2], socket=[1, 2]))
    seen = []
    for news in (_exchanges(("00000000-00000001", 3), ("00000000-00000002", 4)), _exchanges(("00000000-00000002", 5))):
        tracker.join({"any": Figures({}, (_exchanges(("00000000-00000001", 99)),), news=(news,))})
        seen.append({row["id"]: row["requests"] for row in listed(tracker.snapshot().tables[0])})
    assert seen == [{"00000000-00000001": 3, "00000000-00000002": n} for n in (4, 5)]
    feed(tracker, "closed", connections(1, id=3, socket=3))
    tracker.snapshot()
    assert tracker._requests.ids.tolist() == [2]  # nobody asks for the first one any more


def test_times_and_names_of_a_row() -> None:
    tracker = aggregator()
    dwell = np.zeros(12, np.uint64)
    dwell[State.ESTABLISHED], dwell[State.FIN_WAIT1] = 5000, 7000
    feed(
        tracker,
        "closed",
        connections(1, dwell=dwell, error=errno.ECONNRESET, end=End.RST_RECEIVED, min_rtt_us=2**32 - 1),
    )
    row = {column.name: column.values.tolist()[0] for column in tracker.snapshot().tables[0].columns}
    assert (row["source"], row["destination"]) == ("10.0.0.1:20000", "10.0.0.2:80")
    assert (row["lifetime_us"], row["handshake_us"]) == (1e6, 1.0)
    assert (row["established_us"], row["fin_wait1_us"], row["last_ack_us"]) == (5.0, 7.0, 0.0)
    assert (row["end"], row["error"], row["state"]) == ("rst_received", "ECONNRESET", "close")
    assert np.isnan(row["min_rtt_us"])


def test_a_namespace_is_called_by_its_name_or_a_path() -> None:
    assert namespace_number("") == 0
    assert namespace_number("/proc/self/ns/net") == Path("/proc/self/ns/net").stat().st_ino
    with pytest.raises(InputError, match="/run/netns/nobody has it: No such file"):
        namespace_number("nobody has it")
    with pytest.raises(InputError, match=r"netns: /etc/hostname: it is no namespace's file"):
        namespace_number("/etc/hostname")


def test_a_cgroup_has_a_path_that_can_be_written_or_its_number(tmp_path: Path) -> None:
    odd = tmp_path / "user" / os.fsdecode(b"caf\xe9 \x1b")
    odd.mkdir(parents=True)
    number, root = odd.stat().st_ino, tmp_path.stat().st_ino
    paths = Cgroups(Machine(), [str(tmp_path / "nowhere"), str(tmp_path)]).paths({0, number, root, 2**60})
    assert paths == {0: "", root: "/", number: "/user/caf� \x1b", 2**60: f"#{2**60}"}


def test_tables_that_are_looked_at_later_are_those_of_their_snapshot() -> None:
    tracker = aggregator(max_closed=10)
    feed(tracker, "connections", opened(3))
    feed(tracker, "closed", connections(20, began=5))
    at_once, later = tracker.snapshot(), tracker.snapshot()
    expected = [listed(table) for table in at_once.tables]
    feed(tracker, "closed", connections(30, began=6, end=End.RST_SENT), taken=200 * SECOND)
    feed(tracker, "late", np.array([(1, 3 * SECOND)], [("socket", "u8"), ("time", "u8")]))
    feed(tracker, "connections", opened(1))
    tracker.snapshot()
    assert str([listed(table) for table in later.tables]) == str(expected)


def _ports(tables: Any) -> list[int]:
    return sorted(int(row["source"].rpartition(":")[2]) for row in listed(tables[0]))


def test_each_end_is_news_once_and_what_is_open_is_each_time() -> None:
    tracker = aggregator(max_closed=10)
    feed(tracker, "connections", opened(socket=9))
    feed(tracker, "closed", connections(3, local_port=[1, 2, 3]))
    first = tracker.snapshot()
    feed(tracker, "closed", connections(local_port=4))
    second, third = tracker.snapshot(), tracker.snapshot()
    assert [_ports(figures.news) for figures in (first, second, third)] == [[1, 2, 3, 20_000], [4, 20_000], [20_000]]
    assert _ports(third.tables) == [1, 2, 3, 4, 20_000]
    assert [table.name for table in third.news or ()] == [table.name for table in third.tables]
    assert str([listed(table) for table in (third.news or ())[1:]]) == str([listed(t) for t in third.tables[1:]])


def test_an_end_that_turns_out_to_be_another_is_news_again() -> None:
    tracker = aggregator()
    feed(tracker, "closed", connections(3, socket=[1, 2, 3], local_port=[1, 2, 3]))
    tracker.snapshot()
    feed(tracker, "late", np.array([(2, 3 * SECOND)], [("socket", "u8"), ("time", "u8")]))
    (row,) = listed((tracker.snapshot().news or ())[0])
    assert (row["source"], row["end"]) == ("10.0.0.1:2", "rst_sent")
    assert _ports(tracker.snapshot().news) == []
