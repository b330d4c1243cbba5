"""What the maps say before they were read: columns without rows, so that tables never change their columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from probekit import Array

_DEVICE = [("device", "S16")]
_PLACE = [("location", np.uint64), ("reason", np.uint32)]
_COUNT = [("drops", np.uint64), ("packets", np.uint64), ("bytes", np.uint64), ("socket", np.uint64)]
_OWNER = [("uid", np.uint32), ("flags", np.uint32)]
_FLOW = [
    *_PLACE, ("chain", np.uint64), ("ran", np.uint64), ("ran_with", np.uint64), ("source", np.uint8, 16),
    ("destination", np.uint8, 16), ("netns", np.uint32), ("ifindex", np.uint32), ("source_port", np.uint16),
    ("destination_port", np.uint16), ("ethertype", np.uint16), ("protocol", np.uint8), ("state", np.uint8),
    ("hook", np.uint8), ("family", np.uint8), ("old", np.uint8),
]  # fmt: skip


def _columns(*fields: tuple[object, ...]) -> Mapping[str, Array]:
    rows = np.zeros(0, list(fields))
    return {name: rows[name] for name in rows.dtype.names or ()}


FLOWS = _columns(*_FLOW, *_COUNT, *_OWNER, *_DEVICE)
PLACES = _columns(*_PLACE, ("old", np.uint32), *_COUNT, *_OWNER, *_DEVICE)
LAYERS = _columns(
    ("netns", np.uint32), ("ifindex", np.uint32), ("layer", np.uint32), ("ip", np.uint32), ("buffers", np.uint64),
    ("packets", np.uint64), ("bytes", np.uint64),
)  # fmt: skip
EVENTS = _columns(*_FLOW, ("time", np.uint64), ("socket", np.uint64), ("length", np.uint32), *_OWNER, *_DEVICE)
STACKS = _columns(("stack", np.uint64, 32))
"""Beside those of EVENTS, with stacks."""
