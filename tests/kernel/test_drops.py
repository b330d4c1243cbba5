"""What every kernel can show of drops: one run of the probe, all cases beneath it."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .drop_cases import CASES, Case, Expected
from .netns import lab

PROBEKIT = str(Path(sys.executable).with_name("probekit"))
PATIENCE = 600  # an emulated machine compiles slowly
SAYS_NOTHING = ("(not given)", "NOT_SPECIFIED")

pytestmark = pytest.mark.timeout(900)


@contextmanager
def measured(folder: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """`probekit run drops` while the block lasts; afterwards its JSON is in the dict."""
    path, messages = folder / "drops.json", folder / "messages"
    result: dict[str, Any] = {}
    with messages.open("w") as file:
        command = [PROBEKIT, "run", "drops", "--interval", "500ms", "--export", f"json:{path}", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    try:
        end = time.monotonic() + PATIENCE
        while "measuring" not in messages.read_text():
            assert process.poll() is None, messages.read_text()
            assert time.monotonic() < end, messages.read_text()
            time.sleep(0.05)
        yield result
        time.sleep(0.2)  # what is under way in softirqs
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, messages.read_text()
        result.update(json.loads(path.read_text()))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    assert found
    return int(found[1]), int(found[2])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[Case, Expected | Exception]]:
    """The run's figures, and what each case expects; a case that failed has its exception."""
    expected: dict[Case, Expected | Exception] = {}
    with lab() as bench, measured(tmp_path_factory.mktemp("drops")) as result:
        for case in CASES:
            try:
                expected[case] = case(bench)
            except Exception as error:  # it fails in its own test
                expected[case] = error
    return result, expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_drops_are_counted_with_their_reason(
    case: Case, outcome: tuple[dict[str, Any], dict[Case, Expected | Exception]]
) -> None:
    result, expectations = outcome
    expected = expectations[case]
    if isinstance(expected, Exception):
        raise expected
    rows = [
        row for row in result["flows"].values()
        if row["netns"] == expected.netns and row["destination"].startswith(expected.destination)
    ]  # fmt: skip
    wanted = [row for row in rows if row["category"] == expected.category]
    assert sum(row["drops"] for row in wanted) == expected.count, rows
    for row in wanted:
        assert row["location"].partition("+")[0] in expected.functions
        assert row["hook"] == expected.hook
        assert row["chain"] in expected.chains
        given = (expected.reason,) if version() >= expected.since else (expected.reason, *SAYS_NOTHING)
        assert row["reason"] in given


def test_nothing_was_lost(outcome: tuple[dict[str, Any], Any]) -> None:
    result, _ = outcome
    assert not any(result["lost"].values()), result["lost"]
