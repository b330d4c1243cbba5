"""From exec to attached with no further plugins installed, and with 20 that are not used.

Each is a distribution of its own on Python's path, as pip leaves it, whose modules nobody may import.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from . import peers

ROUNDS = 21
PLUGINS = 20
GROUPS = ("probes", "aggregators", "exporters")


def run() -> dict[str, Any]:
    """Seconds until attached, in turns, and CPU seconds until then; ratios are of each pair."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as empty:
        install(Path(folder))
        _start(empty)
        pairs = [(_start(empty), _start(folder)) for _ in range(ROUNDS)]
    return {
        what: {
            "none": round(statistics.median(without[place] for without, _ in pairs), 4),
            f"with_{PLUGINS}": round(statistics.median(installed[place] for _, installed in pairs), 4),
            "ratio": round(statistics.median(installed[place] / without[place] for without, installed in pairs), 4),
        }
        for place, what in enumerate(("wall", "cpu"))
    }


def install(folder: Path) -> None:
    """Puts 20 packages into a folder, each with a plugin of every kind."""
    for number in range(PLUGINS):
        name = f"idle_{number}"
        information = folder / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        points = [f"[probekit.{group}]\n{name} = {name}.{group}\n" for group in GROUPS]
        (information / "entry_points.txt").write_text("\n".join(points))
        package = folder / name
        package.mkdir()
        for module in ("__init__", *GROUPS):
            (package / f"{module}.py").write_text("raise SystemExit('this plugin is not used')\n")


def _start(path: str) -> tuple[float, float]:
    began = time.monotonic()
    command = [peers.PROBEKIT, "run", "latency", "--export", "json:/dev/null"]
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        seconds = time.monotonic() - began
        assert first.startswith("measuring"), first
        cpu = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
        return seconds, cpu
    finally:
        process.terminate()
        process.wait(30)
