"""Streamed events reach whoever reads them as they come, and not at the interval."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .conftest import Probe

SOON = 2.0  # seconds: 0.25 and what a busy machine adds; the interval is 60


def _events(path: Path, port: int) -> list[Any]:
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [line for line in lines if line["record"] == "event" and str(port) in json.dumps(line)]


def _within(seconds: float, found: Callable[[], list[Any]]) -> list[Any]:
    end = time.monotonic() + seconds
    while not (events := found()) and time.monotonic() < end:
        time.sleep(0.02)
    return events


def test_exchanges_are_told_at_once_with_the_names_of_their_processes(
    probe: Callable[..., Probe], tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    probe("latency", "--interval", "60s", "--set", "probe.latency.mode=events", "--export", f"jsonl:{path}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"x")
            client.recv(1)
            client.sendall(b"x")  # which ends the exchange before
            events = _within(SOON, lambda: [e for e in _events(path, port) if e["type"] == "request"])
    assert len(events) == 1
    assert events[0]["process"] == Path("/proc/self/comm").read_text().strip()


def _answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(1))
        connection.recv(1)


def test_drops_are_told_at_once_and_each_of_them_once(probe: Callable[..., Probe], tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        options = ("--set", "probe.drops.mode=events", "--set", f"probe.drops.port={port}")
        running = probe("drops", "--interval", "60s", *options, "--export", f"jsonl:{path}")
        closed.close()
        for number in range(1, 4):
            sender.sendto(b"nobody", ("127.0.0.1", port))
            assert _within(SOON, lambda wanted=number: _events(path, port)[wanted - 1 :])  # type: ignore[misc]
    result = running.result()
    assert len(_events(path, port)) == result["streamed"] == 3
