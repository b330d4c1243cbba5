"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import numpy as np

from probekit import Batch, Columns, Decoder
from probekit.decode import fields, summed
from probekit.model import Array


def _histograms(batch: Batch) -> Columns:
    """A row for each measure: its counts, shape (measures, buckets), summed over the CPUs."""
    return Columns(batch.source, {"counts": batch.data["buckets"].sum(axis=0)})


def _undelivered(batch: Batch) -> Columns:
    """A row for each CPU and side."""
    cpus, sides = batch.data.shape
    columns = fields(Batch(batch.source, batch.data.reshape(-1)))
    return Columns(batch.source, {"side": np.tile(np.arange(sides), cpus), **columns.values})


def _connections(batch: Batch) -> Columns:
    """A row for each connection of the live sets."""
    connections, transports = (batch.data[name].reshape(-1) for name in ("connection", "transport"))
    live = connections["socket"] != 0
    return _records(batch.source, connections[live], transports[live])


def _closed(batch: Batch) -> Columns:
    """A row for each connection."""
    return _records(batch.source, batch.data["connection"], batch.data["transport"])


def _records(source: str, connections: Array, transports: Array) -> Columns:
    return Columns(source, {**fields(Batch(source, connections)).values, **fields(Batch(source, transports)).values})


DECODERS: dict[str, Decoder] = {
    "closed": _closed,
    "connections": _connections,
    "owners": fields,
    "events": fields,
    "counters": summed,
    "histograms": _histograms,
    "undelivered": _undelivered,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
