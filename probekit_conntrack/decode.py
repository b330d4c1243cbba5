"""Batches of the connection tracker's maps to columns."""

from __future__ import annotations

from probekit import Batch, Columns, Decoder
from probekit.decode import fields


def _counters(batch: Batch) -> Columns:
    """One row: each counter's sum over the CPUs."""
    return Columns(batch.source, {name: batch.data[name].sum(axis=0) for name in batch.data.dtype.names or ()})


DECODERS: dict[str, Decoder] = {
    "closed": fields,
    "late": fields,
    "connections": fields,
    "counters": _counters,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
