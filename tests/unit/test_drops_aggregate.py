"""What the drop probe makes of its maps, without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit import Attached, Columns, Table, host
from probekit.attach import Tracepoint
from probekit.host import Machine
from probekit_drops import aggregate, owners
from probekit_drops.config import DropsConfig
from probekit_drops.values import NO_HOOK, NO_REASON, Point

_NUMBERS = {
    "location": np.uint64, "chain": np.uint64, "ran": np.uint64, "ran_with": np.uint64, "reason": np.uint32,
    "netns": np.uint32, "ifindex": np.uint32, "source_port": np.uint16, "destination_port": np.uint16,
    "ethertype": np.uint16, "protocol": np.uint8, "state": np.uint8, "hook": np.uint8, "family": np.uint8,
    "old": np.uint8, "drops": np.uint64, "packets": np.uint64, "bytes": np.uint64, "socket": np.uint64,
    "uid": np.uint32, "flags": np.uint32,
}  # fmt: skip
_PLACE = ("location", "reason", "old", "drops", "packets", "bytes", "socket", "uid", "flags")
_COUNTERS = ("drops", "not_packets", "filtered", "unlisted", "sent", "held_back")


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...] = tuple(_NUMBERS)) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: np.array([row.get(name, NO_HOOK if name == "hook" else 0) for row in rows], _NUMBERS[name])
        for name in names
    }
    values["device"] = np.array([row.get("device", b"") for row in rows], "S16")
    for end in ("source", "destination"):
        values[end] = np.zeros((len(rows), 16), np.uint8)
    return values


def _flow(**more: Any) -> dict[str, Any]:
    return {
        "location": 0xFFFFFFFF81000010, "reason": NO_REASON, "netns": 5, "ifindex": 7, "ethertype": 0x0800,
        "protocol": 17, "destination_port": 53, "drops": 3, "packets": 30, "bytes": 90, "socket": 1, **more,
    }  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's files: processes and names of namespaces."""
    for folder in ("proc", "netns"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(owners.Owners.__init__, "__defaults__", (tmp_path / "proc",))
    monkeypatch.setattr(owners.namespaces, "__defaults__", (tmp_path / "netns",))
    return tmp_path


def _hold(machine: Path, number: int, inode: int) -> None:
    (machine / f"proc/{number}/fd").mkdir(parents=True)
    (machine / f"proc/{number}/comm").write_text(f"holder{number}\n")
    (machine / f"proc/{number}/fd/3").symlink_to(f"socket:[{inode}]")


def _fill(aggregator: aggregate.DropsAggregator, flows: list[dict[str, Any]]) -> None:
    for source, values in (
        ("flows", _columns(flows)),
        ("places", _columns([], _PLACE)),
        ("counters", {name: np.array([0]) for name in _COUNTERS}),
    ):
        aggregator.update(Columns(source, values))


def _plain(tables: Any) -> list[tuple[str, list[Any], Mapping[str, list[Any]]]]:
    def one(table: Table) -> tuple[str, list[Any], Mapping[str, list[Any]]]:
        return table.name, table.key.tolist(), {column.name: column.values.tolist() for column in table.columns}

    return [one(table) for table in tables]


def _layers(ifindex: int, packets: int) -> dict[str, Any]:
    row = {
        "netns": 0,
        "ifindex": ifindex,
        "layer": Point.RECEIVED,
        "ip": 1,
        "buffers": 1,
        "packets": packets,
        "bytes": 9,
    }
    return {name: np.array([value]) for name, value in row.items()}


def test_tables_that_are_made_later_are_those_that_would_have_been_made_at_once(machine: Path) -> None:
    """What is known only afterwards: who holds the socket, the names of device and namespace, further packets."""
    (machine / "blue").write_text("")
    number = (machine / "blue").stat().st_ino
    attached = Attached("received", Tracepoint("netif_receive_skb", "received"))
    aggregator = aggregate.DropsAggregator(DropsConfig(layers=("device",)), (attached,), Machine())
    _fill(aggregator, [_flow(netns=number)])
    aggregator.update(Columns("layers", _layers(1, 105)))
    at_once, late = aggregator.snapshot(), aggregator.snapshot()
    expected = _plain(at_once.tables)
    _hold(machine, 10, 1)
    (machine / "blue").rename(machine / "netns/blue")
    _fill(aggregator, [_flow(netns=number, device=b"eth0"), _flow(netns=number, socket=2, drops=77)])
    aggregator.update(Columns("layers", _layers(1, 999)))
    afterwards = _plain(aggregator.snapshot().tables)
    assert repr(_plain(late.tables)) == repr(expected)  # nan is not itself
    assert (
        [table[0] for table in expected] == [table[0] for table in afterwards] == ["drops", "funnel", "flows", "normal"]
    )
    shown = ("netns", "device", "process", "drops")
    assert [expected[2][2][name] for name in shown] == [[str(number)], ["#7"], [""], [3]]
    assert [afterwards[2][2][name] for name in shown] == [["blue"] * 2, ["eth0"] * 2, ["", "holder10"], [77, 3]]
    assert (expected[1][2]["packets"], afterwards[1][2]["packets"]) == ([105], [999])


def test_a_keepalive_is_in_no_total_and_in_no_stream(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregator = aggregate.DropsAggregator(DropsConfig(mode="events"), (), Machine())
    monkeypatch.setitem(aggregator._namer.__dict__, "reasons", {66: "SKB_DROP_REASON_TCP_OLD_SEQUENCE"})
    rows = [_flow(reason=66, protocol=6, old=1), _flow(reason=66, protocol=6, drops=2)]
    _fill(aggregator, rows)
    events = _columns(rows) | {"time": np.arange(2), "length": np.arange(2)}
    aggregator.update(Columns("events", events))
    stream, figures = aggregator.stream(), aggregator.snapshot()
    assert (figures.summary["total_drops"], figures.summary["normal_frees"]) == (2, 3)
    assert stream is not None
    assert len(stream.key) == 1
    assert [table.name for table in figures.tables] == ["drops", "flows", "normal"]


@pytest.mark.parametrize(
    "config", [DropsConfig(), DropsConfig(mode="events", layers=("device",)), DropsConfig(mode="events", stacks=True)]
)
def test_the_first_tables_have_the_columns_of_all_others(machine: Path, config: DropsConfig) -> None:
    """So an exporter knows them before anything was dropped."""
    aggregator = aggregate.DropsAggregator(config, (), Machine())
    empty, before = aggregator.stream(), aggregator.snapshot()
    _fill(aggregator, [_flow()])
    aggregator.update(Columns("layers", _layers(1, 105)))
    stacks = {"stack": np.zeros((1, 32), np.uint64)} if config.stacks else {}
    events = _columns([_flow()]) | {"time": np.zeros(1, np.uint64), "length": np.zeros(1, np.uint32)} | stacks
    aggregator.update(Columns("events", events))
    full, after = aggregator.stream(), aggregator.snapshot()
    for first, later in ((before.tables, after.tables), ((empty,), (full,))):
        assert [_shape(table) for table in first] == [_shape(table) for table in later]
    assert [table.name for table in before.tables] == [
        name for name in ("drops", "funnel", "flows", "normal") if config.layers or name != "funnel"
    ]
    assert not any(len(table.key) for table in before.tables)
    assert before.summary["total_drops"] == 0


def _shape(table: Table | None) -> Any:
    """What is the same for all snapshots: the length of text is not."""
    return table and (table.name, [(column.name, column.values.dtype.kind, column.label) for column in table.columns])


def test_what_the_process_may_not_see_is_said_with_what_would_let_it(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "proc/self").mkdir()
    (machine / "proc/self/status").write_text("CapEff:\t0000000000000000\n")
    (tmp_path / "kallsyms").write_text("0000000000000000 T first\n")
    aggregator = aggregate.DropsAggregator(DropsConfig(), (), Machine())
    monkeypatch.setattr(aggregator._namer.symbols, "_path", tmp_path / "kallsyms")
    monkeypatch.setattr(host, "refused", lambda path: path.name == "fd")
    (machine / "proc/12/fd").mkdir(parents=True)
    _fill(aggregator, [_flow()])
    figures = aggregator.snapshot()
    said = figures.summary["not_known"]
    assert set(said) == {"functions", "chains", "processes"}
    assert said["functions"].startswith("not shown without CAP_SYSLOG: ")
    assert said["processes"].startswith("not all shown without CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE: ")
    assert "0xffff" not in repr(_plain(figures.tables))
    assert _plain(figures.tables)[0][2]["function"] == ["(hidden)"]


def test_nothing_is_said_to_be_missing_where_nothing_is(machine: Path) -> None:
    _hold(machine, 10, 1)
    aggregator = aggregate.DropsAggregator(DropsConfig(), (), Machine())
    _fill(aggregator, [_flow()])
    assert aggregator.snapshot().summary["not_known"] == {}


def test_a_chain_that_a_new_ruleset_has_replaced_keeps_its_name(machine: Path) -> None:
    aggregator = aggregate.DropsAggregator(DropsConfig(), (), Machine())
    for chain, name in ((0xFFFF888000001000, b"old"), (0xFFFF888000002000, b"new")):
        row = {"netns": 5, "family": 2, "hook": 1, "ifindex": 0, "function": 0xFFFFFFFF81000000, "chain": chain}
        values = {key: np.array([value]) for key, value in row.items()}
        words = {key: np.array([value]) for key, value in (("table", b"t"), ("name", name), ("legacy", b""))}
        aggregator.update(Columns("hooks", values | words))
    assert [entry.name for entry in aggregator._entries[5, 2, 1, 0]] == ["new", "old"]
