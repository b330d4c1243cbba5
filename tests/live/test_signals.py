from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .conftest import Probe, benchmark


def program_ids(pid: int) -> set[int]:
    """BPF programs that a process holds."""
    ids: set[int] = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that it has closed since
            ids |= {int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("prog_id:")}
    return ids


def is_loaded(program: int) -> bool:
    """Asked for one by its number: others' come and go."""
    shown = subprocess.run(["bpftool", "prog", "show", "id", str(program)], check=False, capture_output=True, text=True)
    assert shown.returncode == 0 or "No such file or directory" in shown.stderr, shown.stderr
    return shown.returncode == 0


def wait_until_gone(programs: set[int], seconds: float = 20) -> set[int]:
    """Those that are still there when the time is over: the kernel frees them some time after the last descriptor."""
    end = time.monotonic() + seconds
    while (left := {program for program in programs if is_loaded(program)}) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def test_sigterm_in_mid_run_gives_the_complete_result(probe: Callable[..., Probe], redis: tuple[int, int]) -> None:
    running = probe("latency")
    benchmark(redis[0], "127.0.0.1", 1000, clients=1)
    assert running.signal(signal.SIGTERM) == 0
    result = json.loads(running.path.read_text())
    assert (
        sum(r["events"] for r in result["connections"].values() if r["destination"] == f"127.0.0.1:{redis[0]}") >= 1000
    )


def test_sigkill_leaves_nothing_in_the_kernel(probe: Callable[..., Probe]) -> None:
    running = probe("latency")
    ours = program_ids(running.pid)
    assert len(ours) == 4
    assert all(is_loaded(program) for program in ours)
    running.signal(signal.SIGKILL)
    assert wait_until_gone(ours) == set()
