"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import enum

import numpy as np

from probekit import Batch, Columns, Decoder
from probekit.decode import fields


class Side(enum.IntEnum):
    """Which end of the connection a socket is. The C source gets these enums as macros: SIDE_CLIENT."""

    CLIENT = 1
    SERVER = 2


class Origin(enum.IntEnum):
    """Whether the connection's beginning was seen."""

    BIRTH = 1
    UNSEEN = 2


class End(enum.IntEnum):
    """What became of a record."""

    OPEN = 0
    CLOSED = 1
    EVICTED = 2


class Measure(enum.IntEnum):
    """What is measured: the rows of the map `distributions`."""

    REQUEST = 0
    WIRE = 1
    WAKEUP = 2
    SERVICE = 3
    PICKUP = 4


def _counters(batch: Batch) -> Columns:
    """One row: each counter's sum over the CPUs."""
    return Columns(batch.source, {name: batch.data[name].sum(axis=0) for name in batch.data.dtype.names or ()})


def _distributions(batch: Batch) -> Columns:
    """A row for each CPU and measure: its number and the `struct distribution`."""
    cpus, measures = batch.data.shape
    return Columns(
        batch.source, {"measure": np.tile(np.arange(measures), cpus), "distribution": batch.data.reshape(-1)}
    )


DECODERS: dict[str, Decoder] = {
    "closed": fields,
    "connections": fields,
    "owners": fields,
    "events": fields,
    "counters": _counters,
    "distributions": _distributions,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
