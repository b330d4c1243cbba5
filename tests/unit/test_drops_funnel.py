from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit import Table
from probekit.host import Machine
from probekit_drops import funnel
from probekit_drops.values import Point

_OWN = Path("/proc/self/ns/net").stat().st_ino
_LO = socket.if_nametoindex("lo")
_ALL = (
    "xdp_verdict", "received", "tc_ingress", "hook_enter", "hook_leave", "socket_ingress", "tc_egress", "transmitted",
)  # fmt: skip


def _values(counts: dict[Point, int], other: int = 0, ifindex: int = _LO) -> dict[str, Any]:
    names = ("netns", "ifindex", "layer", "ip", "buffers", "packets", "bytes")
    rows = [(0, ifindex, point, 1, count // 10, count, count * 60) for point, count in counts.items()]
    rows += [(0, ifindex, Point.RECEIVED, 0, other, other, 60)] if other else []
    rows.append((_OWN + 1, ifindex, Point.RECEIVED, 1, 1000, 1000, 60000))  # another namespace's
    return {name: np.array([row[at] for row in rows], np.int64) for at, name in enumerate(names)}


def _columns(table: Table) -> dict[str, list[Any]]:
    return {column.name: column.values.tolist() for column in table.columns}


def _rows(counts: dict[Point, int], programs: tuple[str, ...] = _ALL, runs: int | None = None, other: int = 0) -> Any:
    of_program = {} if runs is None else {"lo": runs}
    columns = _columns(
        funnel.table(_values(counts, other), _OWN, ["lo"], programs, of_program, funnel.Devices(Machine()))
    )
    return {
        layer: (packets, unseen, following)
        for layer, packets, unseen, following in zip(
            columns["layer"], columns["packets"], columns["unseen"], columns["next"], strict=True
        )
    }


def test_what_a_layer_has_and_the_next_has_not_is_unseen() -> None:
    rows = _rows({Point.XDP_DROP: 30, Point.XDP_PASS: 70, Point.RECEIVED: 70, Point.TC_INGRESS: 70})
    assert rows["xdp"] == (100, 30, "xdp passed + xdp sent")
    assert rows["xdp passed"] == (70, 0, "received")
    assert rows["tc ingress"] == (70, 70, "prerouting")


def test_a_packet_is_delivered_or_forwarded() -> None:
    counts = {Point.PREROUTING_LEAVE: 10, Point.INPUT_ENTER: 6, Point.FORWARD_ENTER: 3}
    assert _rows(counts)["prerouting passed"] == (10, 1, "input + forward")


def test_a_layer_that_is_not_attached_is_passed_over() -> None:
    rows = _rows({Point.RECEIVED: 10, Point.SOCKET: 4}, ("received", "socket_ingress"))
    assert rows == {"received": (10, 6, "socket"), "socket": (4, rows["socket"][1], "")}


def test_runs_of_a_program_that_cannot_be_observed_are_compared_with_all_that_arrives() -> None:
    rows = _rows({Point.RECEIVED: 200}, ("received",), runs=305, other=5)
    assert rows["xdp program"] == (305, 100, "received")


def test_buffers_are_counted_apart_from_the_packets_that_they_stand_for() -> None:
    columns = _columns(
        funnel.table(_values({Point.RECEIVED: 300}, 5), _OWN, ["lo"], ("received",), {}, funnel.Devices(Machine()))
    )
    assert [columns[name][0] for name in ("packets", "others", "buffers")] == [300, 5, 35]


def test_a_device_that_is_gone_keeps_its_name_and_what_it_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [(1, "lo"), (7, "eth\udce9")]
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(present))
    devices = funnel.Devices(Machine())
    present.pop()
    devices.look({8: "brief"})
    assert [devices.name(number) for number in (1, 7, 8, 9)] == ["lo", "eth\ufffd", "brief", "#9"]
    for number, name in ((7, "eth\ufffd"), (8, "brief")):
        values = _values({Point.RECEIVED: 105}, ifindex=number)
        columns = _columns(funnel.table(values, _OWN, [name], ("received", "socket_ingress"), {}, devices))
        assert columns["packets"] == [105, 0]
        assert columns["next"] == ["socket; the device is gone", "the device is gone"]


def test_a_device_that_comes_back_is_there_and_one_with_a_new_name_keeps_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = [(7, "eth0")]
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(present))
    devices = funnel.Devices(Machine())
    present[:] = [(7, "lan"), (8, "eth0")]
    devices.look()
    assert (devices.name(7), devices.name(8), devices.gone("eth0")) == ("eth0", "eth0", "")
    present.pop(0)
    devices.look()
    assert devices.gone("eth0") == "the device was replaced"
