from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probekit.errors import ExportError
from probekit.export.jsonl import JsonlConfig, JsonlExporter
from probekit.testing.contract import sample

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
    command = [PROBEKIT, "run", "latency", "--config", str(config)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("measuring")
    benchmark(port, "127.0.0.1", 2000, clients=1)
    running.terminate()
    out, err = running.communicate(timeout=30)
    return subprocess.CompletedProcess(command, running.returncode, out, err)


def table_total(text: str, port: int) -> int:
    """Client events to the port, as the printed table has them."""
    rows = [line.split() for line in text.splitlines() if f":{port}" in line and " client " in line]
    return sum(int(row[4].replace(",", "")) for row in rows)


def is_ours(row: dict[str, Any], port: int) -> bool:
    return str(row["destination"]).endswith(f":{port}") and row["side"] == "client"


def test_three_exporters_give_the_same_totals(tmp_path: Path, redis: tuple[int, int]) -> None:
    done = run_chain(tmp_path, redis[0], str(tmp_path / "{probe}.csv"))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "latency.json").read_text())
    with (tmp_path / "latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = sum(int(row["events"]) for row in rows if is_ours(row, redis[0]))
    assert ours == sum(row["events"] for row in document["connections"].values() if is_ours(row, redis[0])) >= 2000
    assert 2000 <= table_total(done.stdout, redis[0]) <= ours  # the table has room for the busiest, of others too
    printed = re.search(r"^request +([\d,]+)", done.stdout, re.MULTILINE)
    assert printed is not None
    total = int(printed[1].replace(",", ""))  # of the machine, which others may use
    assert total == document["total_events"] == document["event_type_breakdown"]["request"] >= ours
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


@pytest.mark.parametrize("kind", ["json", "csv", "jsonl"])
def test_a_pipe_that_nobody_reads_holds_up_neither_the_run_nor_the_others(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    exports = ["--export", f"{kind}:{tmp_path}/pipe", "--export", f"json:{tmp_path}/out"]
    done = subprocess.run(
        [PROBEKIT, "run", "latency", "--duration", "1s", *exports], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4
    assert f"{tmp_path}/pipe: nobody reads this pipe" in done.stderr
    assert json.loads((tmp_path / "out").read_text())["probe"] == "latency"


@pytest.mark.parametrize("exports", [[], ["--export", "jsonl"], ["--export", "json:/dev/stdout"]])
def test_a_closed_standard_output_is_said_before_anything_is_measured(exports: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", PROBEKIT, "run", "latency", "--duration", "1s", *exports]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr in ("error: standard output is closed\n", "error: /dev/stdout: is closed\n")


def test_a_reader_of_standard_output_that_goes_is_an_exporters_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [PROBEKIT, "run", "latency", "--duration", "1s"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 4
    assert done.stderr.splitlines()[1:] == ["error: standard output: Broken pipe"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(exporter: JsonlExporter) -> None:
    while True:
        exporter.export(sample())


def test_lines_on_a_disk_that_is_full_end_with_a_whole_one_and_go_on_when_it_is_not(small_disk: Path) -> None:
    path, other = small_disk / "out", small_disk / "other"
    other.write_bytes(bytes(40_000))
    with JsonlExporter(JsonlConfig(str(path))) as exporter:
        with pytest.raises(ExportError, match=r"out: No space left on device; 1 of 1 records were not written"):
            fill(exporter)
        full = path.read_text()
        other.unlink()
        exporter.export(sample())
    text = path.read_text()
    assert full.endswith("\n")
    assert text.startswith(full)
    assert {json.loads(line)["probe"] for line in text.splitlines()} == {"sample"}


HOSTILE = b"=\x1b[2J\x9b\xff\xe2\x80\xae"  # a formula, escapes, what is no UTF-8, and a turn of the line's direction

CLIENT = f"""
import socket
with open("/proc/self/comm", "wb") as file:
    file.write({HOSTILE!r})
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
for _ in range(10):
    client.sendall(b"question")
    accepted.recv(100)
    accepted.sendall(b"answer")
    client.recv(100)
print(client.getsockname()[1])
"""


def test_a_process_cannot_reach_anybody_by_its_name(tmp_path: Path) -> None:
    exports = [f"--export={kind}:{tmp_path}/{kind}" for kind in ("json", "csv", "jsonl")]
    command = [PROBEKIT, "run", "latency", "--set", 'probe.latency.mode="events"', *exports]
    running = subprocess.Popen([*command, "--export=stdout"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("measuring")
    client = subprocess.run([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True, check=True)
    running.terminate()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    name = HOSTILE.decode(errors="replace")
    shown = r"=\x1b[2J" + "\ufffd\ufffd" + r"\u202e"
    texts = {kind: (tmp_path / kind).read_text() for kind in ("json", "csv", "jsonl")} | {"stdout": out}
    for kind, text in texts.items():
        assert text.replace("\n", "").isprintable(), kind
    rows = [
        row
        for row in json.loads(texts["json"])["connections"].values()
        if row["source"].endswith(client.stdout.strip())
    ]
    assert name in {row["process"] for row in rows}
    assert name in {record.get("process") for record in map(json.loads, texts["jsonl"].splitlines())}
    assert f"'{shown}" in {row["process"] for row in csv.DictReader(texts["csv"].splitlines())}
    assert shown in texts["stdout"]
