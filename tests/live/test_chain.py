from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PROBEKIT, Probe, benchmark

CONFIG = """
[[export]]
kind = "json"
path = "{folder}/{{probe}}.json"
[[export]]
kind = "csv"
path = "{csv}"
[[export]]
kind = "stdout"
"""


def run_chain(tmp_path: Path, port: int, csv_path: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "run.toml"
    config.write_text(CONFIG.format(folder=tmp_path, csv=csv_path))
    command = [PROBEKIT, "run", "latency", "--config", str(config), "--duration", "3s"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("measuring")
    benchmark(port, "127.0.0.1", 2000, clients=1)
    out, err = running.communicate(timeout=30)
    return subprocess.CompletedProcess(command, running.returncode, out, err)


def table_total(text: str, port: int) -> int:
    """Client events to the port, as the printed table has them."""
    rows = [line.split() for line in text.splitlines() if f":{port}" in line and " client " in line]
    return sum(int(row[5].replace(",", "")) for row in rows)


def test_three_exporters_give_the_same_totals(tmp_path: Path, redis: tuple[int, int]) -> None:
    done = run_chain(tmp_path, redis[0], str(tmp_path / "{probe}.csv"))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "latency.json").read_text())
    with (tmp_path / "latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    total = sum(int(row["events"]) for row in rows if row["side"] == "client")
    assert total == document["total_events"] == document["event_type_breakdown"]["request"] >= 2000
    assert total == sum(r["events"] for r in document["connections"].values() if r["side"] == "client")
    printed = re.search(r"^request +([\d,]+)", done.stdout, re.MULTILINE)
    assert printed is not None
    assert int(printed[1].replace(",", "")) == total
    assert table_total(done.stdout, redis[0]) == total
    assert "\x1b" not in done.stdout


def test_an_exporter_that_fails_leaves_the_others_whole(tmp_path: Path, redis: tuple[int, int]) -> None:
    done = run_chain(tmp_path, redis[0], "/dev/full")
    assert done.returncode == 4
    assert "/dev/full: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    document = json.loads((tmp_path / "latency.json").read_text())
    assert document["total_events"] >= 2000
    assert table_total(done.stdout, redis[0]) >= 2000


@pytest.mark.parametrize("kind", ["json", "csv", "jsonl"])
def test_files_are_for_their_owner_only(probe: Callable[..., Probe], tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"out.{kind}"
    probe("latency", "--export", f"{kind}:{path}").result()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
