"""The parts that need the kernel are skipped where this machine or user has none to give."""

import subprocess
from pathlib import Path

import pytest
from probekit.testing import Harnesses, Recording, assert_plugin_contract

RECORDING = Path(__file__).with_name("recording.json")


def test_contract() -> None:
    assert_plugin_contract("probe", "yourprobe")


@pytest.fixture(scope="module")
def recording(probe_harness: Harnesses, request: pytest.FixtureRequest) -> Recording:
    """What the probe's maps had; with --record made again, before any test reads it."""
    if request.config.getoption("--record"):
        with probe_harness("yourprobe").live() as live:
            sleep_three_times()
            live.record(RECORDING)
    return Recording.load(RECORDING)


def sleep_three_times() -> None:
    for _ in range(3):
        subprocess.run(["sleep", "0.2"], check=True)


def test_figures_of_a_recording(probe_harness: Harnesses, recording: Recording) -> None:
    figures = probe_harness("yourprobe").replay(recording).figures
    (commands,) = figures.tables
    processes = dict(zip(commands.key.tolist(), commands.columns[1].values.tolist(), strict=True))
    assert processes["sleep"] >= 3
    assert sum(processes.values()) == figures.summary["total_events"] == figures.distributions[0].events
    assert figures.lost == {"commands_full": 0, "programs_missed": 0, "records_undecoded": 0}


def test_figures_of_made_up_batches(probe_harness: Harnesses, recording: Recording) -> None:
    batch = recording.batch("commands", ((b"cc",), (4, 10_000_000)), ((b"ld",), (1, 7_000_000)))
    (commands,) = probe_harness("yourprobe").replay([batch], recording.maps).figures.tables
    assert commands.key.tolist() == ["cc", "ld"]
    assert commands.columns[2].values.tolist() == [2.5, 7.0]


def test_compiles(probe_harness: Harnesses) -> None:
    assert "process_exit" in probe_harness("yourprobe").compile().programs


def test_live(probe_harness: Harnesses) -> None:
    with probe_harness("yourprobe").live() as live:
        sleep_three_times()
        figures = live.finish().figures
    (commands,) = figures.tables
    place = commands.key.tolist().index("sleep")
    assert commands.columns[1].values[place] >= 3
    assert commands.columns[2].values[place] >= 200
