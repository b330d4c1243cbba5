"""A run of the drop probe beneath a test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import misses
from .netns import Namespace

PROBEKIT = str(Path(sys.executable).with_name("probekit"))
PATIENCE = 600  # an emulated machine compiles slowly


@contextmanager
def measured(
    folder: Path, *arguments: str, space: Namespace | None = None, within: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """`probekit run drops` while the block lasts; afterwards its JSON is in the dict.

    Args:
        folder: For its files.
        arguments: More of its arguments.
        space: Where it runs.
        within: A command that starts it.
    """
    path, messages = folder / "drops.json", folder / "messages"
    result: dict[str, Any] = {}
    with messages.open("w") as file:
        inside = ["ip", "netns", "exec", space.name] if space else []
        command = [
            *inside,
            *within,
            PROBEKIT,
            "run",
            "drops",
            "--interval",
            "500ms",
            "--export",
            f"json:{path}",
            *arguments,
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    result["pid"] = process.pid
    try:
        end = time.monotonic() + PATIENCE
        while not path.exists():  # after the first interval everything is there that figures are made of
            assert process.poll() is None, messages.read_text()
            assert time.monotonic() < end, messages.read_text()
            time.sleep(0.05)
        yield result
        time.sleep(0.5)  # what is under way in softirqs
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, messages.read_text()
        result.update(json.loads(path.read_text()))
        misses.note(result, result)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
