"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import numpy as np

from probekit import Batch, Columns, Decoder
from probekit.decode import fields


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
