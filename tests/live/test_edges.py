"""Where a run begins and ends: what counts does so from one moment to one moment, on the programs' clock."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import PROBEKIT, READY


class Load:
    """A client and a server on loopback: requests of one byte, with a pause between them.

    Attributes:
        port: The server's.
        longest: The client's longest request by its own clock, seconds.
        asked: When each request began and ended, by the same clock.
    """

    def __init__(self, per_second: int) -> None:
        self._pause = 1 / per_second
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.longest = 0.0
        self.asked: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._ask)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        end, _ = self._listener.accept()
        with end:
            while end.recv(1):
                end.send(b"!")

    def _ask(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as end:
            following = time.monotonic()
            while not self._over.is_set():
                following += self._pause
                time.sleep(max(0, following - time.monotonic()))
                began = time.monotonic()
                end.send(b"?")
                end.recv(1)
                ended = time.monotonic()
                self.asked.append((began, ended))
                self.longest = max(self.longest, ended - began)

    def within(self, seconds: float) -> tuple[int, int]:
        """The fewest and the most requests that lie within so long a time, wherever that begins."""
        began, ended = np.array(self.asked).T
        edges = np.concatenate([began, ended, began - seconds, ended - seconds])
        edges = edges[(edges >= began[0]) & (edges + seconds <= ended[-1])]
        # just before and just after each moment at which the number changes
        starts = np.concatenate([edges - 1e-9, edges + 1e-9])
        counts = np.searchsorted(ended, starts + seconds, "right") - np.searchsorted(began, starts)
        return int(counts.min()), int(counts.max())


def row_of(document: dict[str, Any], port: int, side: str = "client") -> dict[str, Any]:
    end = "destination" if side == "client" else "source"
    (row,) = (r for r in document["connections"].values() if r[end].endswith(f":{port}") and r["side"] == side)
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize("seconds", [1, 2])
def test_the_rate_is_that_of_the_time_measured(tmp_path: Path, seconds: int) -> None:
    """By the client's own clock: on a machine that others use it may not get its turn 500 times a second."""
    with Load(500) as load:
        time.sleep(0.2)
        document = measured(tmp_path, "latency", "--duration", f"{seconds}s")
    assert document["duration_seconds"] >= seconds
    # what is between opening the gate and reading the clock, and the rounding of the figure, are below a millisecond
    fewest, most = (
        load.within(document["duration_seconds"] - 1e-3)[0],
        load.within(document["duration_seconds"] + 1e-3)[1],
    )
    # the kernel's requests are shorter than the client's, so two more have room; one is missing where a thread lost its
    # CPU between a gate and the clock
    for side in ("client", "server"):
        assert fewest - 1 <= row_of(document, load.port, side)["events"] <= most + 2


def test_no_request_is_longer_than_the_client_says_though_it_is_busy_while_runs_begin(tmp_path: Path) -> None:
    for _ in range(5):
        with Load(2000) as load:
            document = measured(tmp_path, "latency", "--duration", "300ms")
        row = row_of(document, load.port)
        assert row["events"] > 0
        assert row["max_latency_us"] <= load.longest * 1e6
        assert row_of(document, load.port, "server")["max_latency_us"] <= load.longest * 1e6


def test_attaching_layers_drops_nothing(tmp_path: Path) -> None:
    """Before there was a gate, probes that attach to devices and hooks counted a packet of their own attaching."""
    layers = 'probe.drops.layers=["device","tc","netfilter","socket"]'
    options = ("--set", layers, "--set", 'probe.drops.devices=["lo"]', "--set", 'probe.drops.netns="own"')
    alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    document = measured(tmp_path, "drops", "--duration", "300ms", *options, prefix=alone)
    assert document["total_drops"] == 0
    assert sum(row["packets"] for row in document["funnel"].values()) == 0


def test_the_time_is_the_programs_also_in_a_time_namespace(tmp_path: Path) -> None:
    """There user space's monotonic clock has an offset that the programs' has not."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    apart = ("unshare", "--time", "--monotonic", "100000", "--fork")
    with (
        listener,
        running(tmp_path, "conntrack", prefix=apart) as run,
        socket.create_connection(("127.0.0.1", port)),
        listener.accept()[0],
    ):
        time.sleep(0.3)
        document = run.end(signal.SIGTERM)
    rows = [r for r in document["connections"].values() if f":{port}" in r["source"] + r["destination"]]
    assert len(rows) == 2
    for row in rows:
        assert 0.3e6 <= row["lifetime_us"] <= document["duration_seconds"] * 1e6 + 1000
    assert document["duration_seconds"] < 60
    for row in document["over_time"].values():
        assert 0 < row["until_s"] <= document["duration_seconds"] + 0.001


def test_sighup_ends_a_run_with_its_results(tmp_path: Path) -> None:
    # the tests themselves may run under nohup
    with running(tmp_path, "latency", prefix=("env", "--default-signal=HUP")) as run:
        assert "connections" in run.end(signal.SIGHUP)


def test_under_nohup_it_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, "latency", prefix=("nohup",)) as run:
        run.send(signal.SIGHUP)
        time.sleep(0.3)
        assert not run.over
        assert "connections" in run.end(signal.SIGTERM)


def test_intervals_that_were_slept_through_are_not_made_up_for(tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    with running(tmp_path, "latency", "--interval", "100ms", "--export", f"jsonl:{lines}") as run:
        time.sleep(0.35)
        run.send(signal.SIGSTOP)
        time.sleep(1)
        run.send(signal.SIGCONT)
        time.sleep(0.35)
        run.end(signal.SIGTERM)
    times = [json.loads(line)["duration_seconds"] for line in lines.read_text().splitlines()]
    gaps = [after - before for before, after in itertools.pairwise(times)][:-1]  # the end comes when it comes
    assert max(gaps) > 0.9
    assert sum(gap < 0.03 for gap in gaps) <= 1  # the one after the stop goes back to the rhythm


def test_results_are_whole_though_descriptors_run_out(tmp_path: Path) -> None:
    with running(tmp_path, "conntrack", "latency") as run:
        time.sleep(1)  # all that it reads to begin with is read
        used = len(list(Path(f"/proc/{run.pid}/fd").iterdir()))
        resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (used, used))
        time.sleep(1.2)
        document = run.end(signal.SIGTERM)
    assert "services" in document


def test_a_load_of_short_connections_does_not_keep_a_run_from_its_end(tmp_path: Path) -> None:
    """What is produced after the end is not waited for: before, a run of 5 s took 42."""
    with Connections() as load:
        documents = [measured(tmp_path, name, "--duration", "1s") for name in ("latency", "conntrack")]
    assert load.made > 100
    for document in documents:
        assert document["duration_seconds"] == pytest.approx(1, abs=0.3)


class Connections:
    """Opens and closes connections as fast as it can, in a process of its own."""

    _CODE = """
import socket, struct, sys, threading
s = socket.create_server(("127.0.0.1", 0), backlog=500)
def serve():
    while True:
        a, _ = s.accept(); a.sendall(a.recv(9) or b"x"); a.close()
threading.Thread(target=serve, daemon=True).start()
for n in range(200000):
    c = socket.create_connection(s.getsockname()); c.sendall(b"q"); c.recv(9)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()
    print(n, flush=True)
"""

    def __enter__(self) -> Connections:
        self.made = 0
        self._process = subprocess.Popen([sys.executable, "-c", self._CODE], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._count)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _count(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            self.made += 1


class Run:
    """A run that goes on until it is ended."""

    def __init__(self, folder: Path, probe: str, command: list[str]) -> None:
        self._path = folder / f"{probe}.json"
        self._messages = folder / "messages"
        with self._messages.open("w") as messages:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=messages)
        by = time.monotonic() + 60
        while READY not in self._messages.read_text():
            assert self._process.poll() is None, self._messages.read_text()
            assert time.monotonic() < by
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The run's own; `unshare` waits for it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def send(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def end(self, number: int) -> dict[str, Any]:
        """Ends it by a signal; the first probe's document."""
        self.send(number)
        assert self._process.wait(30) == 0, self._messages.read_text()
        document: dict[str, Any] = json.loads(self._path.read_text())
        return document

    def close(self) -> None:
        """Kills it, if it has not ended."""
        if not self.over:
            self.send(signal.SIGKILL)
        self._process.wait(30)


@contextmanager
def running(tmp_path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Run]:
    command = [*prefix, PROBEKIT, "run", *arguments, "--export", f"json:{tmp_path}/{{probe}}.json"]
    run = Run(tmp_path, arguments[0], command)
    try:
        yield run
    finally:
        run.close()


def measured(tmp_path: Path, probe: str, *arguments: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    path = tmp_path / "out.json"
    command = [*prefix, PROBEKIT, "run", probe, *arguments, "--export", f"json:{path}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    document: dict[str, Any] = json.loads(path.read_text())
    return document
