"""Recordings taken live have the same figures again: later, with another network, as another user."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probekit.export.document import document
from probekit.testing import Harnesses

NOBODY = 65534
REPLAY = """
import json, sys
from probekit.export.document import document
from probekit.testing import Harness, Recording

def looks(event, arguments):
    files = event in ("open", "os.listdir", "os.scandir", "os.walk")
    if files and str(arguments[0]).startswith(("/proc", "/sys", "/run")):
        raise AssertionError(f"the machine was looked at: {arguments[0]}")

name, options = sys.argv[1], json.loads(sys.argv[2])
harness, recording = Harness(name, options, {}), Recording.parse(sys.stdin.read())
planned = harness._planned()  # the plan is of this kernel, and of no interest here
harness._planned = lambda: planned
harness.replay(recording)  # imports what it needs
sys.addaudithook(looks)
told = document(harness.replay(recording))
print(json.dumps({key: value for key, value in told.items() if key not in ("timestamp", "duration_seconds", "kernel")}))
"""


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server that answers each byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1):
            connection.sendall(data)


def _talk(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    for _ in range(5):
        connection.sendall(b"x")
        connection.recv(1)
    return connection


def _knock(_port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(7):
            sender.sendto(b"nobody", ("127.0.0.1", 9))


def _connect(port: int) -> socket.socket:
    for _ in range(3):
        _talk(port).close()
    return _talk(port)


CASES: dict[str, tuple[dict[str, object], Callable[[int], socket.socket | None]]] = {
    "latency": ({}, _connect),
    "conntrack": ({}, _connect),
    "drops": ({"layers": ["xdp", "device", "socket"], "devices": ["lo"]}, _knock),
}


@pytest.mark.parametrize("probe", CASES)
@pytest.mark.skipif(shutil.which("setpriv") is None or shutil.which("unshare") is None, reason="needs util-linux")
def test_a_recording_has_the_same_figures_anywhere(
    probe_harness: Harnesses, tmp_path: Path, server: int, probe: str
) -> None:
    options, traffic = CASES[probe]
    harness = probe_harness(probe, options)
    with harness.live() as live:
        held = [traffic(server)]
        live.snapshot()
        held.append(traffic(server))
        last = live.finish()
        live.record(tmp_path / "recording")
    for connection in held:
        if connection is not None:
            connection.close()
    told = document(last)
    for name in ("timestamp", "duration_seconds", "kernel"):
        del told[name]
    assert _events(told) > 0
    command = ["unshare", "--net", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    replay = [sys.executable, "-c", REPLAY, probe, json.dumps(options)]
    recording = (tmp_path / "recording").read_text()
    done = subprocess.run([*command, *replay], input=recording, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert {name: again.get(name) for name in told} == json.loads(json.dumps(told))
    assert done.stdout.strip() == json.dumps(told)  # to the byte


def _events(told: dict[str, int]) -> int:
    return told.get("total_events", 0) + told.get("opened", 0) + told.get("total_drops", 0)
