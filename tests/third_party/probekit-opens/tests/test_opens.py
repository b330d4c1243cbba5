"""The probe sees which files are opened, by a way of attaching and a kind of source that are its own."""

import subprocess
import sys
from pathlib import Path

from probekit.testing import Harnesses, Recording, assert_plugin_contract

OPEN = "import sys\nfor _ in range(int(sys.argv[2])): open(sys.argv[1]).close()"


def test_contract() -> None:
    assert_plugin_contract("probe", "opens")


def _opened(harness: Harnesses, path: Path, times: int, **options: int) -> tuple[dict[str, int], dict[str, int], int]:
    with harness("opens", **options).live() as live:
        subprocess.run([sys.executable, "-c", OPEN, path, str(times)], check=True)
        figures = live.finish().figures
    (files,) = figures.tables
    values = {column.name: column.values.tolist() for column in files.columns}
    opens = dict(zip(values["path"], values["opens"], strict=True))
    return opens, dict(figures.lost), figures.summary["total_events"]


def test_files_are_counted(probe_harness: Harnesses, tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.touch()
    opens, lost, calls = _opened(probe_harness, path, 7, most=10_000)
    assert opens[str(path)[:63]] == 7
    assert calls == sum(opens.values())
    assert lost["queue_full"] == 0


def test_what_finds_the_queue_full_is_counted(probe_harness: Harnesses, tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.touch()
    opens, lost, calls = _opened(probe_harness, path, 500, waiting=10, most=10_000)
    assert sum(opens.values()) == 10
    assert lost["queue_full"] == calls - 10 >= 490


def test_a_recording_has_the_same_figures(probe_harness: Harnesses, tmp_path: Path) -> None:
    harness, path = probe_harness("opens", most=10_000), tmp_path / "it"
    path.touch()
    with harness.live() as live:
        subprocess.run([sys.executable, "-c", OPEN, path, "3"], check=True)
        live.record(tmp_path / "recording")
    (files,) = harness.replay(Recording.load(tmp_path / "recording")).figures.tables
    assert (
        dict(zip(files.columns[1].values.tolist(), files.columns[2].values.tolist(), strict=True))[str(path)[:63]] == 3
    )
