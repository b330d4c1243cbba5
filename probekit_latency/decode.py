"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import numpy as np

from probekit import Batch, Columns, Decoder
from probekit.decode import fields, summed


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
    "counters": summed,
    "histograms": _histograms,
    "undelivered": _undelivered,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
