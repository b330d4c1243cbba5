"""What the tests of this folder load: probes with the options that change what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def _latency() -> Iterator[dict[str, Any]]:
    yield {}
    for way in ("fentry", "kprobe", "tracepoint"):
        yield {"attach": way}


OBJECTS: list[tuple[str, dict[str, Any]]] = [("latency", options) for options in _latency()]
