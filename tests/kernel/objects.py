"""What the tests of this folder load: probes with the options that change what is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ROOM = 64
SMALL = {"mode": "events", "buffer": "4KiB", "max_connections": ROOM, "pickup": True, "outlier": "1s"}
"""Latency with little room, so that losing something is cheap."""
EVENTS = {"mode": "events"}
CROWDED = {"max_connections": ROOM}
NOTHING = {"sample": 1e-9}


def _latency() -> Iterator[dict[str, Any]]:
    yield {}
    for way in ("fentry", "kprobe", "tracepoint"):
        for options in ({}, SMALL, EVENTS, CROWDED, NOTHING):
            yield {"attach": way, **options}


_STREAMED: list[dict[str, Any]] = [{}, {"mode": "events"}, {"mode": "events", "stacks": True}]
_FILTERED: list[dict[str, Any]] = [{}, {"port": 39061, "netns": "own", "protocols": ["udp", "other"]}]
_LAYERED = {"layers": ["xdp", "device", "tc", "netfilter", "socket"], "devices": ["lo"]}
_SHAPES = [{**streamed, **filtered} for streamed in _STREAMED for filtered in _FILTERED]
DROPS = [*_SHAPES, {**_SHAPES[-1], **_LAYERED}]
"""Every shape of the drop probe's largest program, which layers change nothing of, and all programs.

What is filtered by is in a map: one shape for all values.
"""

MODULES = ("nf_tables", "x_tables")
"""Modules whose types the plans depend on; tests load them before they plan."""

OBJECTS: list[tuple[str, dict[str, Any]]] = [
    *(("latency", options) for options in _latency()),
    ("conntrack", {}),
    *(("drops", options) for options in DROPS),
]
