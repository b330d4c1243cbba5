from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np

from probekit_drops import funnel
from probekit_drops.values import Point

_OWN = Path("/proc/self/ns/net").stat().st_ino
_LO = socket.if_nametoindex("lo")
_ALL = (
    "xdp_verdict", "received", "tc_ingress", "hook_enter", "hook_leave", "socket_ingress", "tc_egress", "transmitted",
)  # fmt: skip


def _rows(counts: dict[Point, int], programs: tuple[str, ...] = _ALL, runs: int | None = None, other: int = 0) -> Any:
    names = ("netns", "ifindex", "layer", "ip", "packets", "bytes")
    rows = [(0, _LO, point, 1, count, count * 60) for point, count in counts.items()]
    rows += [(0, _LO, Point.RECEIVED, 0, other, 60)] if other else []
    rows.append((_OWN + 1, _LO, Point.RECEIVED, 1, 1000, 60000))  # another namespace's
    values = {name: np.array([row[at] for row in rows], np.int64) for at, name in enumerate(names)}
    table = funnel.table(values, _OWN, ["lo"], programs, {} if runs is None else {"lo": runs})
    columns = {column.name: column.values.tolist() for column in table.columns}
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
