"""(c) and (f) What a load loses with the probe beside it, in alternating pairs, and what the probe's process takes."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import peers

PAIRS = 15
REQUESTS = 60_000
CLIENTS = 50
WRK_SECONDS = 1
HELD = 100_000
SIZES = (3, 1024, 4096, 8192, 16384, 32768, 65536, 131072, 262144)


def run() -> dict[str, Any]:
    """Ratios of the throughput with the probe to that without."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with peers.redis(folder) as port:
            results["redis"] = _pairs(lambda: peers.redis_benchmark(port, REQUESTS, CLIENTS), events_each=4)
            size = _size_for(port, HELD)
            held = _pairs(lambda: peers.redis_benchmark(port, REQUESTS // 2, CLIENTS, size), events_each=4)
            results["redis at 100,000 events/s"] = {"bytes_a_value": size, **held}
        with _nginx(folder) as port:
            results["wrk"] = _pairs(lambda: _wrk(port), events_each=4)
    return results


def _size_for(port: int, events: int) -> int:
    """The size of values with which a machine that does nothing else makes about so many events a second."""
    rates = {size: 4 * peers.redis_benchmark(port, REQUESTS // 4, CLIENTS, size) for size in SIZES}
    return min(rates, key=lambda size: abs(rates[size] - events))


def _pairs(measure: Callable[[], float], events_each: int) -> dict[str, Any]:
    ratios, rates, spent, lasted = [], [], 0.0, 0.0
    measure()
    for number in range(PAIRS):
        with_probe = without = 0.0
        for probed in (False, True) if number % 2 else (True, False):
            if not probed:
                without = measure()
                continue
            with peers.probe() as running:
                time.sleep(0.5)  # the import of NumPy is start-up, and measured there
                before, began = peers.cpu_seconds(running.pid), time.monotonic()
                with_probe = measure()
                spent += peers.cpu_seconds(running.pid) - before
                lasted += time.monotonic() - began
        ratios.append(with_probe / without)
        rates.append(with_probe * events_each)
    return {
        "with_of_without": round(statistics.median(ratios), 3),
        "spread": peers.spread(ratios),
        "program_runs_per_second": round(statistics.median(rates)),
        "user_cpu_percent_of_machine": round(100 * spent / lasted / (os.cpu_count() or 1), 3),
    }


@contextmanager
def _nginx(folder: Path) -> Iterator[int]:
    port = 30000 + os.getpid() % 10000
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("x" * 500)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
        "events {}\n"
        f"http {{ access_log off; keepalive_requests 10000000;"
        f" server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}\n"
    )
    for path in (folder, folder / "www"):
        path.chmod(0o755)
    command = [str(shutil.which("nginx", path="/usr/sbin:/usr/bin")), "-c", str(config)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _wrk(port: int) -> float:
    command = ["wrk", "-t1", "-c20", f"-d{WRK_SECONDS}s", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("Requests/sec:"))
    return float(line.split()[1])
