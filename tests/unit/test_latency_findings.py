"""Findings of the latency probe: each is there where its rule says so, and not just below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probekit.model import Array
from probekit_latency.findings import findings
from probekit_latency.rows import ROW, verdict
from probekit_latency.values import UNSEEN, Side

MS = 10**6
JIFFY_US = 4000.0


def row(side: Side = Side.CLIENT, peer: int = 1, port: int = 80, **values: Any) -> Array:
    """A connection of 100 exchanges of 2 ms, of which 1.9 are the peer's."""
    made = np.zeros(1, ROW)
    figures = {"events": 100, "sum": 200 * MS, "min": 2 * MS, "max": 2 * MS, "wait": 5 * MS, "id": peer, "pid": 7}
    for name, value in {**figures, **values}.items():
        made[name] = value
    made["side"], made["first"] = side, UNSEEN
    made["who"]["remote_port" if side == Side.CLIENT else "local_port"] = port
    made["who"]["remote" if side == Side.CLIENT else "local"][:, 15] = peer
    return made


def found(*rows: Array) -> list[str]:
    return [f.finding for f in findings(np.concatenate(rows), {7: "it"}, False, JIFFY_US)]


def test_where_all_is_well_there_are_none() -> None:
    assert found(row(), row(Side.SERVER), row(Side.SERVER, wait=0)) == []
    assert findings(np.zeros(0, ROW), {}, False, JIFFY_US) == []


STALLS: dict[str, Any] = {"sum": 4200 * MS, "transferred": 4000 * MS, "gaps": 100, "max": 42 * MS}


def test_pauses_within_responses_that_the_server_did_not_make() -> None:
    nagle = ["Nagle meets delayed acknowledgement"]
    assert found(row(**STALLS)) == nagle
    assert found(row(**STALLS), row(Side.SERVER, transferred=2 * MS)) == nagle
    assert found(row(**STALLS), row(Side.SERVER, transferred=3900 * MS)) == []  # it is the server that pauses
    assert found(row(**STALLS), row(Side.SERVER, peer=2, transferred=3900 * MS)) == nagle  # another one's
    assert found(row(**{**STALLS, "gaps": 4})) == []
    assert found(row(**{**STALLS, "events": 19})) == []
    (finding,) = findings(np.concatenate([row(**STALLS), row(Side.SERVER, transferred=2 * MS)]), {7: "it"}, False, 1)
    assert (finding.process, finding.service) == ("it", "[::1]:80")
    assert "100 pauses" in finding.text
    assert "the server had sent all of it after 0.02 ms" in finding.text
    assert "TCP_NODELAY" in finding.next


@pytest.mark.parametrize("side", list(Side))
def test_segments_that_were_sent_again(side: Side) -> None:
    assert found(row(side, retransmits=3, max=250 * MS)) == ["retransmission within requests"]
    assert found(row(side, retransmits=2)) == []
    assert found(row(side, retransmits=3, events=400, sum=800 * MS)) == []


def test_a_reader_without_room() -> None:
    assert found(row(Side.SERVER, transferred=100 * MS, no_room=5)) == ["the reader comes late"]
    assert found(row(Side.SERVER, transferred=100 * MS, no_room=4)) == []
    assert found(row(Side.SERVER, transferred=1000 * MS, no_room=5)) == []


def test_a_process_that_comes_late() -> None:
    late = row(sum=1200 * MS, wait=1000 * MS, max=12 * MS)
    assert found(late) == ["the process comes late to its data"]
    assert found(row(sum=1200 * MS, wait=490 * MS, max=12 * MS)) == []
    assert found(row(sum=4000 * MS, wait=1000 * MS, max=40 * MS)) == []


def test_requests_that_wait_for_a_server() -> None:
    assert found(row(Side.SERVER, wait=600 * MS)) == ["requests wait for the server's process"]
    assert found(row(Side.SERVER, wait=600 * MS, sum=700 * MS, max=7 * MS)) == []


def test_a_peer_that_is_slower_than_its_siblings() -> None:
    slow = row(peer=4, sum=700 * MS, max=7 * MS)
    assert found(row(peer=1), row(peer=2), row(peer=3), slow) == ["slower than its siblings"]
    assert found(row(peer=1), slow) == []  # who is to say which one
    assert found(row(peer=1, port=1), row(peer=2, port=2), slow) == []  # of other services
    assert found(row(peer=1), row(peer=2), row(peer=3, sum=500 * MS, max=5 * MS)) == []


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ("peer", {}), ("network", {"min_rtt_us": 1500}), ("wakeup", {"wait": 150 * MS}),
        ("transfer", {"transferred": 150 * MS}), ("stall", STALLS), ("", {"events": 0, "sum": 0}),
        ("service", {"side": Side.SERVER}), ("reply", {"side": Side.SERVER, "transferred": 300 * MS}),
        ("pickup", {"side": Side.SERVER, "wait": 300 * MS}),
    ],
)  # fmt: skip
def test_a_verdict_is_the_part_that_takes_most(expected: str, values: dict[str, Any]) -> None:
    assert verdict(row(**values), False).tolist() == [expected]
