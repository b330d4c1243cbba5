"""Maps as they are now: tables, per-CPU arrays, hashes."""

from __future__ import annotations

import mmap
import sys

import numpy as np

from .. import bpf
from ..model import Array, Batch, LiveMap, Source


class TableReader:
    """Reads the live slots of a mappable array, without a system call."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        self._source = source
        stride = (live.value.itemsize + 7) & ~7  # array_map_alloc: elem_size
        slot = np.dtype({"names": ["value"], "formats": [live.value], "itemsize": stride})
        entries = live.spec.max_entries
        self._memory = mmap.mmap(live.fd, entries * stride, mmap.MAP_SHARED, mmap.PROT_READ)
        self._slots: Array = np.frombuffer(self._memory, slot, entries)["value"]

    def read(self) -> Batch | None:
        """Copies the live slots."""
        live = self._slots[np.flatnonzero(self._slots[self._source.live])]
        return Batch(self._source.map, live[live[self._source.live] != 0])

    def close(self) -> None:
        """Unmaps the table."""
        del self._slots
        self._memory.close()


class PerCpuReader:
    """Reads a per-CPU array: a batch of shape (CPUs, entries)."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        self._source = source
        self._live = live
        self._cpus = cpus
        stride = (live.value.itemsize + 7) & ~7
        self._slot = np.dtype({"names": ["value"], "formats": [live.value], "itemsize": stride})

    def read(self) -> Batch | None:
        """Copies every CPU's values."""
        entries = []
        for number in range(self._live.spec.max_entries):
            key = number.to_bytes(4, sys.byteorder)
            raw = bpf.lookup(self._live.fd, key, self._cpus * self._slot.itemsize)
            entries.append(np.frombuffer(raw, self._slot)["value"])
        return Batch(self._source.map, np.stack(entries, axis=1))

    def close(self) -> None:
        """Nothing is held."""


class HashReader:
    """Reads all entries of a hash: a batch with the fields `key` and `value`."""

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        self._source = source
        self._live = live

    def read(self) -> Batch | None:
        """Copies all entries."""
        spec = self._live.spec
        keys, values = bpf.items(self._live.fd, spec.key_size, spec.value_size, spec.max_entries)
        data = np.empty(len(keys) // spec.key_size, [("key", self._live.key), ("value", self._live.value)])
        data["key"] = np.frombuffer(keys, self._live.key)
        data["value"] = np.frombuffer(values, self._live.value)
        return Batch(self._source.map, data)

    def close(self) -> None:
        """Nothing is held."""
