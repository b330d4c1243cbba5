"""Maps as they are now: tables, per-CPU arrays, hashes."""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np

from ..errors import LoadError
from ..machine import bpf
from ..machine.map_types import words
from ..model import Array, Batch, LiveMap, Source
from ..model.rows import chosen, opaque
from .layout import as_dtype, entry, round8
from .settled import settled


def _refuse_others(source: Source, live: LiveMap) -> None:
    """Refuses a map that is not what the source is read as: the kernel would write past the end of the buffers.

    Raises:
        LoadError: Its type or the size of its values or keys is another.
    """
    if not source.fits(live.spec):
        raise LoadError(f"{words(live.spec.type)}, {source.name}, cannot be read as a source {type(source).__name__}")
    for what, layout, size in (
        ("values", live.value, live.spec.value_size),
        *((("keys", live.spec.key, live.spec.key_size),) if source.keyed else ()),
    ):
        if as_dtype(layout).itemsize != size:
            raise LoadError(f"{what} of {source.name} have {size} bytes, their layout {as_dtype(layout).itemsize}")


def _slot(live: LiveMap) -> np.dtype[Any]:
    """A value with its padding: the kernel rounds elements of arrays up to 8 bytes (array_map_alloc)."""
    value = as_dtype(live.value)
    return np.dtype({"names": ["value"], "formats": [value], "itemsize": round8(value.itemsize)})


class SlotsReader:
    """Reads the live slots of a mappable array, without a system call."""

    def __init__(self, source: Source, field: str, live: LiveMap) -> None:
        _refuse_others(source, live)
        self._source = source
        self._field = field
        slot = _slot(live)
        entries = live.spec.max_entries
        self._memory = mmap.mmap(live.fd, entries * slot.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)
        self._slots: Array = np.frombuffer(self._memory, slot, entries)["value"]

    def read(self) -> Batch | None:
        """Copies the live slots."""
        live = settled(opaque(self._slots), self._occupied(self._slots)).view(self._slots.dtype)
        return Batch(self._source.name, chosen(live, self._occupied(live)))

    def _occupied(self, slots: Array) -> Array:
        """Which slots are live: those where the field, or any element of it, is not 0."""
        used = slots[self._field]
        return np.flatnonzero(used.any(axis=tuple(range(1, used.ndim))))

    def close(self) -> None:
        """Unmaps the table."""
        del self._slots
        self._memory.close()


class PerCpuArrayReader:
    """Reads a per-CPU array: a batch of shape (CPUs, entries)."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        _refuse_others(source, live)
        self._source = source
        self._live = live
        self._cpus = cpus
        self._slot = _slot(live)

    def read(self) -> Batch | None:
        """Copies every CPU's values."""
        entries = []
        for number in range(self._live.spec.max_entries):
            key = number.to_bytes(4, sys.byteorder)
            raw = bpf.lookup(self._live.fd, key, self._cpus * self._slot.itemsize)
            entries.append(np.frombuffer(raw, self._slot)["value"])
        return Batch(self._source.name, np.stack(entries, axis=1))

    def close(self) -> None:
        """Nothing is held."""


class ArrayReader:
    """Reads all entries of an array."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        _refuse_others(source, live)
        self._source = source
        self._live = live

    def read(self) -> Batch | None:
        """Copies all entries."""
        spec = self._live.spec
        _, values = bpf.items(self._live.fd, 4, spec.value_size, spec.max_entries)
        return Batch(self._source.name, np.frombuffer(values, as_dtype(self._live.value)))

    def close(self) -> None:
        """Nothing is held."""


class HashReader:
    """Reads all entries of a hash: a batch with the fields `key` and `value`."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        _refuse_others(source, live)
        self._source = source
        self._live = live
        self._entry = entry(live)

    def read(self) -> Batch | None:
        """Copies all entries."""
        spec = self._live.spec
        keys, values = bpf.items(self._live.fd, spec.key_size, spec.value_size, spec.max_entries)
        data = np.empty(len(keys) // spec.key_size, self._entry)
        for part, raw in (("key", keys), ("value", values)):
            opaque(data[part])[:] = opaque(np.frombuffer(raw, self._entry[part]))
        return Batch(self._source.name, data)

    def close(self) -> None:
        """Nothing is held."""


class PerCpuHashReader:
    """Reads all entries of a per-CPU hash: a batch with the fields `key` and `value`, which is of shape (CPUs,)."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        _refuse_others(source, live)
        self._source = source
        self._live = live
        self._cpus = cpus
        self._slot = _slot(live)
        self._entry = entry(live, cpus)

    def read(self) -> Batch | None:
        """Copies all entries."""
        spec = self._live.spec
        keys, values = bpf.items(self._live.fd, spec.key_size, self._cpus * self._slot.itemsize, spec.max_entries)
        data = np.empty(len(keys) // spec.key_size, self._entry)
        data["key"] = np.frombuffer(keys, self._entry["key"])
        data["value"] = np.frombuffer(values, self._slot)["value"].reshape(len(data), self._cpus)
        return Batch(self._source.name, data)

    def close(self) -> None:
        """Nothing is held."""


class StacksReader:
    """Reads all stack traces: a batch with the fields `key` and `value`."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        _refuse_others(source, live)
        self._source = source
        self._live = live
        self._entry = entry(live)

    def read(self) -> Batch | None:
        """Copies all traces; the kernel hands out one at a time."""
        found = list(bpf.items_singly(self._live.fd, self._live.spec.key_size, self._live.spec.value_size))
        return Batch(self._source.name, np.frombuffer(b"".join(found), self._entry))

    def close(self) -> None:
        """Nothing is held."""
