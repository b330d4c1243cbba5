"""Real traffic on the real kernel. Everything stays on loopback and is bounded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import misses

from .packages import environments

__all__ = ["environments"]

PROBEKIT = str(Path(sys.executable).with_name("probekit"))
READY = "measuring"


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests load programs into the kernel: run ./dev test, which asks for root")


class Probe:
    """`probekit run` in the background, from the moment that it measures; its result is that of the first probe."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], within: tuple[str, ...] = ()) -> None:
        self.path = folder / f"{arguments[0]}.json"
        self._messages = (folder / "messages").open("w+")
        self._process = subprocess.Popen(
            [*within, PROBEKIT, "run", *arguments, "--export", f"json:{folder}/{{probe}}.json"],
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
        )
        end = time.monotonic() + 60
        while READY not in self.messages():
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"probekit did not begin to measure: {self.messages()}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    def messages(self) -> str:
        return Path(self._messages.name).read_text()

    def signal(self, number: int) -> int:
        """Sends a signal; the exit status."""
        self._process.send_signal(number)
        return self._process.wait(30)

    def result(self) -> Any:
        """Ends the run as Ctrl-C does; its JSON."""
        assert self.signal(signal.SIGINT) == 0, self.messages()
        result = json.loads(self.path.read_text())
        misses.note(self, result)
        return result

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        self._messages.close()


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Callable[..., Probe]]:
    """A function that starts a run, which is over with the block at the latest."""
    started: list[Probe] = []

    def start(*arguments: str, within: tuple[str, ...] = ()) -> Probe:
        place = folder / f"probe{len(started)}"
        place.mkdir()
        started.append(Probe(place, arguments, within))
        return started[-1]

    try:
        yield start
    finally:
        for running in started:
            running.close()


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Callable[..., Probe]]:
    """Starts a run; it is over with the test at the latest."""
    with starting(tmp_path) as start:
        yield start


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A redis server on 127.0.0.1 and ::1: its port and process id."""
    program = tmp_path / "redis-server"  # redis-tools has it under the name of another
    program.symlink_to(str(shutil.which("redis-check-rdb")))
    port = free_port()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "::1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).stdout.strip() != b"PONG":
            assert server.poll() is None, "redis-server did not start"
            time.sleep(0.02)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(10)


def benchmark(port: int, host: str, requests: int, clients: int) -> int:
    """Runs redis-benchmark; its process id."""
    command = ["redis-benchmark", "-h", host, "-p", str(port), "-t", "set"]
    client = subprocess.Popen(
        [*command, "-n", str(requests), "-c", str(clients), "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert client.wait(100) == 0
    return client.pid
