"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

import attrs
import numpy as np

from probekit import Array, Batch, Columns, Decoder
from probekit.decode import fields, summed

from .values import HIGH_BITS, REST_BITS, End


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
    columns = _records(batch.source, batch.data["connection"], batch.data["transport"])
    return attrs.evolve(columns, values={**columns.values, "end": batch.data["end"]})


def _records(source: str, connections: Array, transports: Array) -> Columns:
    """What shares words in the kernel, as fields of its own."""
    values = {**fields(Batch(source, connections)).values, **fields(Batch(source, transports)).values}
    values["min"], values["unsplit"] = _parted(values.pop("min_unsplit"), REST_BITS)
    values["max"], values["srtt_us"] = _parted(values.pop("max_srtt_us"), REST_BITS)
    values["events"], received_high = _parted(values.pop("events_received_high"), HIGH_BITS)
    for name, high in (("sent", values.pop("sent_high")), ("received", received_high)):
        values[name] = _whole(values.pop(f"{name}_low"), high)
    values["id"] = _whole(values.pop("id_low"), values.pop("id_high"))
    values["end"] = np.full(len(connections), End.OPEN, "u1")
    return Columns(source, values)


def _parted(words: Array, bits: int) -> tuple[Array, Array]:
    """The upper part of words, and the lower one, of so many bits."""
    return words >> np.uint64(bits), words & np.uint64((1 << bits) - 1)


def _whole(low: Array, high: Array) -> Array:
    """Numbers of which the lower 32 bits are kept elsewhere."""
    whole: Array = low | high.astype(np.uint64) << np.uint64(32)
    return whole


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
