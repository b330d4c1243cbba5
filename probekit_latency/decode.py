"""Batches of the latency probe's maps to columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen

from probekit import Array, Batch, Columns, Decoder
from probekit.decode import fields, summed

from .config import LatencyConfig
from .values import GOES_ON, HANDED, HIGH_BITS, LONGEST, OLDER, REST_BITS, UNSEEN, End, Side

_BEFORE = ("sent_before", "received_before", "retransmits_before")
_PARTS = ("connection", "transport", "lasted", "transferred", "waited", *_BEFORE)


def _histograms(batch: Batch) -> Columns:
    """A row for each measure: its counts, shape (measures, buckets), summed over the CPUs."""
    return Columns(batch.source, {"counts": batch.data["buckets"].sum(axis=0)})


def _longer(batch: Batch) -> Columns:
    """The same of a map that the CPUs share."""
    return Columns(batch.source, {"counts": batch.data["buckets"]})


def _undelivered(batch: Batch) -> Columns:
    """A row for each CPU and side."""
    cpus, sides = batch.data.shape
    columns = fields(Batch(batch.source, batch.data.reshape(-1)))
    return Columns(batch.source, {"side": np.tile(np.arange(sides), cpus), **columns.values})


@frozen
class _Records:
    """Decodes connections, those that are open and those that are closed.

    Attributes:
        outlier: How long an exchange may take, ns.
        first_bytes: The main figures are of first bytes.
    """

    outlier: int
    first_bytes: bool

    def open(self, batch: Batch) -> Columns:
        """A row for each connection of the live sets."""
        data = {name: batch.data[name].reshape(-1) for name in batch.data.dtype.names or () if name in _PARTS}
        live = data["connection"]["socket"] != 0
        return Columns(batch.source, self._values({name: data[name][live] for name in data}))

    def closed(self, batch: Batch) -> Columns:
        """A row for each connection."""
        data = {name: batch.data[name] for name in batch.data.dtype.names or () if name in _PARTS}
        return Columns(batch.source, {**self._values(data), "end": batch.data["end"]})

    def _values(self, data: Mapping[str, Array]) -> dict[str, Array]:
        """What shares words in the kernel, as fields of its own; exchanges whose responses go on are counted."""
        values = {
            **fields(Batch("", data["connection"])).values,
            **fields(Batch("", data["transport"])).values,
            **_under_way(data["connection"]["start"], data["connection"]["used"], data["lasted"]),
        }
        rows = len(values["start"])
        values |= {name: data.get(name, np.zeros(rows, np.uint32)) for name in _BEFORE}
        values["waited"] = data.get("waited", np.full(rows, UNSEEN, np.uint64))
        client = values["side"] == Side.CLIENT
        count = data["lasted"] >> np.uint64(36) & np.uint64(0xFFF)
        values["gaps"], values["no_room"] = np.where(client, count, 0), np.where(client, 0, count)
        values["transferred"] = data["transferred"].copy()
        values["min"], values["unsplit"] = _parted(values.pop("min_unsplit"), REST_BITS)
        values["max"], values["srtt_us"] = _parted(values.pop("max_srtt_us"), REST_BITS)
        values["events"], received_high = _parted(values.pop("events_received_high"), HIGH_BITS)
        values["squares"] = values.pop("square_high") * 2.0**64 + values.pop("square_low")
        for name, high in (("sent", values.pop("sent_high")), ("received", received_high)):
            values[name] = _whole(values.pop(f"{name}_low"), high)
        values["id"] = _whole(values.pop("id_low"), values.pop("id_high"))
        values["end"] = np.full(rows, End.OPEN, "u1")
        self._add_pending(values)
        return values

    def _add_pending(self, values: dict[str, Array]) -> None:
        """Adds the exchanges whose responses have begun, as if they were over now: as the kernel does when they are."""
        pending = values["first"] != UNSEEN
        mine = pending & (values["side"] == Side.CLIENT)
        before = np.where(mine, values["first"], np.uint64(0))
        room = np.uint64(self.outlier) - np.minimum(before, np.uint64(self.outlier))
        values["lasts"] = np.where(values["lasts"] <= room, values["lasts"], np.uint64(0))  # beyond, it is a stream
        values["transferred"] += values["lasts"]
        took = np.where(mine, before + (np.uint64(0) if self.first_bytes else values["lasts"]), np.uint64(0))
        values["events"] = values["events"] + mine
        values["sum"] = values["sum"] + took
        values["squares"] += took.astype(np.float64) ** 2
        values["min"] = np.where(mine, np.minimum(values["min"], took), values["min"])
        values["max"] = np.maximum(values["max"], took)


def _under_way(start: Array, used: Array, lasted: Array) -> dict[str, Array]:
    """The exchange that is under way: since when, or what is known of one whose response has begun."""
    handed, goes_on = (start & np.uint64(HANDED)) != 0, (start & np.uint64(GOES_ON)) != 0
    return {
        "since": np.where(~handed & (start > OLDER), start, np.uint64(0)),
        "moment": used.astype(np.uint64) << np.uint64(16) | start >> np.uint64(36) & np.uint64(0xFFFF),
        "first": np.where(handed, start & np.uint64(LONGEST), np.uint64(UNSEEN)),
        "lasts": np.where(handed & goes_on, lasted & np.uint64(LONGEST), np.uint64(0)),
        "min_rtt_us": (lasted >> np.uint64(48)) * np.uint64(4),
    }


def _parted(words: Array, bits: int) -> tuple[Array, Array]:
    """The upper part of words, and the lower one, of so many bits."""
    return words >> np.uint64(bits), words & np.uint64((1 << bits) - 1)


def _whole(low: Array, high: Array) -> Array:
    """Numbers of which the lower 32 bits are kept elsewhere."""
    whole: Array = low | high.astype(np.uint64) << np.uint64(32)
    return whole


def decoders(config: LatencyConfig) -> dict[str, Decoder]:
    """A decoder for each map of the C source. Columns are named as the fields of its structs."""
    records = _Records(round(config.outlier * 1e9), config.main == "first_byte")
    return {
        "closed": records.closed,
        "connections": records.open,
        "owners": fields,
        "events": fields,
        "counters": summed,
        "histograms": _histograms,
        "longer": _longer,
        "undelivered": _undelivered,
    }
