"""The BPF programs of processes that a benchmark started, and what the kernel counts of them.

Other people's programs come and go meanwhile: who holds one is in its descriptors, and no list of all is read.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

_HELD = re.compile(r"^prog_id:\s*([0-9]+)$", re.MULTILINE)


@frozen
class Program:
    """What the kernel counts of a program while run times are counted.

    Attributes:
        name: As the kernel has it, at most 15 characters.
        runs: How often it ran.
        nanoseconds: How long, all runs together.
    """

    name: str
    runs: int
    nanoseconds: int


def held(pid: int) -> set[int]:
    """Ids of the programs that a process holds, itself or by links; none where it is gone."""
    found: set[int] = set()
    try:
        descriptors = list(Path(f"/proc/{pid}/fdinfo").iterdir())
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            found |= {int(number) for number in _HELD.findall(descriptor.read_text())}
        except OSError:  # closed meanwhile
            continue
    return found


def settled(process: subprocess.Popen[Any], quiet: float = 1.0, within: float = 15.0) -> set[int]:
    """Ids of the programs of a tool once it has loaded all: for a while nothing comes or goes.

    Args:
        process: The tool. One that ends has none, which is what happens where this kernel does not let it attach.
        quiet: Seconds without a change.
        within: Seconds to begin in.
    """
    end = time.monotonic() + within
    seen, since = held(process.pid), time.monotonic()
    while time.monotonic() < end and process.poll() is None:
        if seen and time.monotonic() - since >= quiet:
            return seen
        time.sleep(0.05)
        now = held(process.pid)
        if now != seen:
            seen, since = now, time.monotonic()
    return held(process.pid)


def counts(ids: Iterable[int]) -> dict[int, Program]:
    """What is counted of programs; those that are gone are not in it."""
    found = {}
    for number in ids:
        command = ["bpftool", "--json", "prog", "show", "id", str(number)]
        shown = subprocess.run(command, capture_output=True, text=True)
        if shown.returncode == 0:
            said = json.loads(shown.stdout)
            found[number] = Program(said.get("name", ""), said.get("run_cnt", 0), said.get("run_time_ns", 0))
    return found


def between(start: dict[int, Program], stop: dict[int, Program], ids: Iterable[int]) -> Program:
    """Runs and nanoseconds between two counts, of some programs together; of one, with its name."""
    there = [number for number in ids if number in start and number in stop]
    return Program(
        stop[there[0]].name if len(there) == 1 else "",
        sum(stop[number].runs - start[number].runs for number in there),
        sum(stop[number].nanoseconds - start[number].nanoseconds for number in there),
    )
