"""What the benchmarks share: commands, figures and bcc as a peer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probekit.compile import cache, find_libbcc, headers
from probekit.machine import kernel

PROBEKIT = str(Path(sys.executable).with_name("probekit"))
HERE = Path(__file__).parent
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


def header_tree() -> Path:
    """Headers for bcc as a peer: it has none of its own on a machine without kernel headers."""
    facts = kernel.detect()
    assert facts.btf is not None
    btf, store = facts.btf, cache.Cache(cache.default_folder())
    store.prepare()
    return store.tree("bench", lambda out: headers.make(out, btf, facts.release, find_libbcc(), facts.page_size))


def bcc_flags() -> list[str]:
    """What bcc needs beside the tree of the environment; `in_process` sets that."""
    types = Path(os.environ["BCC_KERNEL_SOURCE"], "include/vmlinux.h")
    return [f'-DPROBEKIT_TYPES="{types}"', "-fms-extensions"]


def in_process(module: str, *arguments: str) -> dict[str, Any]:
    """Runs a module of this package in a process of its own; the JSON that it prints last."""
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(header_tree())}
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=HERE.parents[1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@contextmanager
def probe(*arguments: str, probekit: str = PROBEKIT) -> Iterator[subprocess.Popen[str]]:
    """`probekit run latency` while it measures, of this release or of another one's command."""
    command = [probekit, "run", "latency", "--export", "json:/dev/null", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            assert running.stderr.readline().startswith("measuring")
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(30)


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """A redis server on loopback: its port."""
    program = folder / "redis-server"
    if not program.exists():
        program.symlink_to(str(shutil.which("redis-check-rdb")))
    port = 20000 + os.getpid() % 10000
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).stdout.strip() != b"PONG":
            assert server.poll() is None, "redis-server did not start"
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def redis_benchmark(port: int, requests: int, clients: int, size: int = 3) -> float:
    """Requests per second, each to set a value of so many bytes."""
    command = ["redis-benchmark", "-p", str(port), "-t", "set", "-n", str(requests), "-c", str(clients), "--csv"]
    command += ["-d", str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))


@contextmanager
def counted() -> Iterator[None]:
    """The kernel counts run times of programs."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        yield
    finally:
        STATS.write_text(before)  # somebody else may be counting


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values: list[float]) -> str:
    """Median, with the smallest and the largest."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
