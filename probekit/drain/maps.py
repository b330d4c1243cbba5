"""Maps as they are now: tables, per-CPU arrays, hashes."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
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


class CopyReader:
    """Reads a map by a function that copies all of it.

    Args:
        source: What it is.
        live: The map behind it.
        copy: Returns a batch's data.
    """

    def __init__(self, source: Source, live: LiveMap, copy: Callable[[], Array]) -> None:
        _refuse_others(source, live)
        self._name = source.name
        self._copy = copy

    def read(self) -> Batch | None:
        """What is there now."""
        return Batch(self._name, self._copy())

    def close(self) -> None:
        """Nothing is held."""


def per_cpu_array(live: LiveMap, cpus: int) -> Array:
    """Values of a per-CPU array: shape (CPUs, entries)."""
    slot = _slot(live)
    keys = (number.to_bytes(4, sys.byteorder) for number in range(live.spec.max_entries))
    raw = (bpf.lookup(live.fd, key, cpus * slot.itemsize) for key in keys)
    return np.stack([np.frombuffer(each, slot)["value"] for each in raw], axis=1)


def array(live: LiveMap) -> Array:
    """Values of an array: shape (entries,)."""
    _, values = bpf.items(live.fd, 4, live.spec.value_size, live.spec.max_entries)
    return np.frombuffer(values, as_dtype(live.value))


def hash_entries(live: LiveMap) -> Array:
    """Entries of a hash, with the fields `key` and `value`: shape (n,)."""
    spec, kind = live.spec, entry(live)
    keys, values = bpf.items(live.fd, spec.key_size, spec.value_size, spec.max_entries)
    data = np.empty(len(keys) // spec.key_size, kind)
    for part, raw in (("key", keys), ("value", values)):
        opaque(data[part])[:] = opaque(np.frombuffer(raw, kind[part]))
    return data


def per_cpu_hash_entries(live: LiveMap, cpus: int) -> Array:
    """Entries of a per-CPU hash, of which `value` is of shape (CPUs,): shape (n,)."""
    spec, slot, kind = live.spec, _slot(live), entry(live, cpus)
    keys, values = bpf.items(live.fd, spec.key_size, cpus * slot.itemsize, spec.max_entries)
    data = np.empty(len(keys) // spec.key_size, kind)
    data["key"] = np.frombuffer(keys, kind["key"])
    data["value"] = np.frombuffer(values, slot)["value"].reshape(len(data), cpus)
    return data


def stack_traces(live: LiveMap) -> Array:
    """Stack traces with their ids; the kernel hands out one at a time: shape (n,)."""
    found = bpf.items_singly(live.fd, live.spec.key_size, live.spec.value_size)
    return np.frombuffer(b"".join(found), entry(live))
