"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import enum

import numpy as np

from probekit import Batch, Columns, Decoder
from probekit.decode import fields


class Side(enum.IntEnum):
    """Which end of the connection a socket is. The C source gets these enums as macros: SIDE_CLIENT."""

    CLIENT = 0
    SERVER = 1


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
    """What is measured: the rows of the map `histograms`."""

    REQUEST = 0
    WIRE = 1
    WAKEUP = 2
    SERVICE = 3
    PICKUP = 4


def _counters(batch: Batch) -> Columns:
    """One row: each counter's sum over the CPUs."""
    return Columns(batch.source, {name: batch.data[name].sum(axis=0) for name in batch.data.dtype.names or ()})


def _histograms(batch: Batch) -> Columns:
    """A row for each measure: its counts, shape (measures, buckets), summed over the CPUs."""
    return Columns(batch.source, {"counts": batch.data["buckets"].sum(axis=0)})


def _undelivered(batch: Batch) -> Columns:
    """A row for each CPU and side."""
    cpus, sides = batch.data.shape
    columns = fields(Batch(batch.source, batch.data.reshape(-1)))
    return Columns(batch.source, {"side": np.tile(np.arange(sides), cpus), **columns.values})


DECODERS: dict[str, Decoder] = {
    "closed": fields,
    "connections": fields,
    "owners": fields,
    "events": fields,
    "counters": _counters,
    "histograms": _histograms,
    "undelivered": _undelivered,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
