"""What every kernel can show of drops: one run of the probe, all cases beneath it."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from probekit.machine import kernel

from . import drop_cases, netfilter_cases, transport_cases
from .drop_cases import Case, Expected, version
from .measured import measured
from .netns import lab
from .objects import MODULES

CASES = (*drop_cases.CASES, *netfilter_cases.CASES, *transport_cases.CASES)
SAYS_NOTHING = ("(not given)", "NOT_SPECIFIED")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[Case, Expected | BaseException]]:
    """The run's figures, and what each case expects; a case that failed has its exception."""
    expected: dict[Case, Expected | BaseException] = {}
    for module in MODULES:  # before the run begins: names of chains and tables are where the modules' types say
        subprocess.run(["modprobe", "--quiet", module], check=False)
    room = "probe.drops.max_flows=100000"  # others may drop packets, too
    with lab() as bench, measured(tmp_path_factory.mktemp("drops"), "--set", room) as result:
        for case in CASES:
            try:
                expected[case] = case(bench)
            except (Exception, pytest.skip.Exception) as error:  # it fails, or is skipped, in its own test
                expected[case] = error
    return result, expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_drops_are_counted_with_their_reason(
    case: Case, outcome: tuple[dict[str, Any], dict[Case, Expected | BaseException]]
) -> None:
    result, expectations = outcome
    expected = expectations[case]
    if isinstance(expected, BaseException):
        raise expected
    rows = [
        row for row in result["flows"].values()
        if row["netns"] == expected.netns and row["destination"].startswith(expected.destination)
    ]  # fmt: skip
    category = expected.without if expected.without and version() < (5, 17) else expected.category
    wanted = [row for row in rows if row["category"] == category]
    assert sum(row["drops"] for row in wanted) == expected.count, rows
    packets = expected.count if expected.packets is None else expected.packets
    assert sum(row["packets"] for row in wanted) == packets, rows
    facts = kernel.detect()  # modules' types are there from 5.11 on
    named = facts.has_name("nft_base_chain") or facts.member_offset("nf_tables", "nft_chain", "name") is not None
    for row in wanted:
        assert row["location"].partition("+")[0] in expected.functions
        assert row["hook"] == expected.hook
        if named or "nft " not in row["chain"]:
            assert row["chain"] in expected.chains
        after = expected.next if category == expected.category else ""
        assert any(_same(row, cause) and after in cause["next"] for cause in result["drops"].values())
        given = (expected.reason,) if version() >= expected.since else (expected.reason, *SAYS_NOTHING)
        assert row["reason"] in given


def _same(flow: dict[str, Any], cause: dict[str, Any]) -> bool:
    """Whether a row of the table of drops is a flow's."""
    same = (flow[name] == cause[name] for name in ("category", "reason", "hook", "chain"))
    return all(same) and flow["location"] == cause["function"]


def test_what_brings_nothing_is_a_normal_free(outcome: tuple[dict[str, Any], dict[Case, Expected]]) -> None:
    result, expectations = outcome
    at_least = sum(expected.normal for expected in expectations.values() if isinstance(expected, Expected))
    functions = ("tcp_validate_incoming", "tcp_data_queue", "tcp_rcv_established")  # the last two may be one
    normal = [row for row in result.get("normal", {}).values() if row["function"].startswith(functions)]
    assert sum(row["drops"] for row in normal) >= at_least


def test_nothing_was_lost(outcome: tuple[dict[str, Any], Any]) -> None:
    result, _ = outcome
    lost = {**result["lost"], "programs_missed": 0}  # an interrupt may come in the middle of a program, and is counted
    assert not any(lost.values()), lost
