"""A BPF ring buffer as NumPy arrays: no Python call for an event.

Layout (kernel/bpf/ringbuf.c): page 0 is the consumer's position, writable; page 1 the producer's; then the data, mapped
twice in a row, so that no record wraps. A record is an 8-byte head (length, whose top bit says busy and next one
discarded; page offset), then the data, rounded up to 8 bytes.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np

from ..model import Array, Batch, LiveMap, Source
from ..model.rows import stacked
from .layout import as_dtype, round8

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEAD = 8


class RingReader:
    """Reads the records of one ring buffer.

    Attributes:
        fd: The map, readable (as poll says it) when a program asked for a wake-up.
        delivered: Records handed out.
        foreign: Records of another size than the layout's, left out.
    """

    def __init__(self, source: Source, live: LiveMap, cpus: int) -> None:
        self.fd = live.fd
        self.delivered = 0
        self.foreign = 0
        self._name = source.name
        self._value = as_dtype(live.value)
        self._step = _HEAD + round8(self._value.itemsize)
        self._record = np.dtype(
            {"names": ["head", "value"], "formats": ["=u4", self._value], "offsets": [0, _HEAD], "itemsize": self._step}
        )
        self._size = live.spec.max_entries
        page = mmap.PAGESIZE
        self._ours = mmap.mmap(live.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(live.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer: Array = np.frombuffer(self._ours, "=u8", 1)
        self._producer: Array = np.frombuffer(self._theirs, "=u8", 1)
        self._data: Array = np.frombuffer(self._theirs, "u1", offset=page)
        self._fence = threading.Lock()

    def read(self) -> Batch | None:
        """Takes all finished records out of the buffer."""
        consumed = int(self._consumer[0])
        produced = int(self._producer[0])
        if produced == consumed:
            return None
        self._barrier()
        raw = self._data[consumed % self._size :][: produced - consumed]
        chunks, at = [], 0
        while at < len(raw):
            chunk = self._run(raw[at:])
            chunks.append(chunk)
            at += len(chunk) * self._step
            if at < len(raw):
                head = int(raw[at : at + 4].view("=u4")[0])
                length = head & ~_DISCARDED
                if head & _BUSY:
                    break
                if not head & _DISCARDED and length != self._value.itemsize:
                    self.foreign += 1
                if head != self._value.itemsize:
                    at += _HEAD + round8(length)
        values = chunks[0] if len(chunks) == 1 else stacked(chunks)
        self._barrier()
        self._consumer[0] = consumed + at
        self.delivered += len(values)
        return Batch(self._name, values) if len(values) else None

    def close(self) -> None:
        """Unmaps the buffer."""
        del self._consumer, self._producer, self._data
        self._ours.close()
        self._theirs.close()

    def _run(self, raw: Array) -> Array:
        """A copy of the records up to the first one that is busy, discarded or of another size."""
        records = raw[: len(raw) // self._step * self._step].view(self._record)
        odd = records["head"] != self._value.itemsize
        count = int(odd.argmax()) if odd.any() else len(records)
        # bytes: copying structs one field after the other takes ten times as long
        copied: Array = raw[: count * self._step].copy().view(self._record)["value"]
        return copied

    def _barrier(self) -> None:
        """Orders memory accesses before and after by a release and an acquire.

        On CPUs that reorder loads, no data may be read before the producer's position, nor after the consumer's was
        written.
        """
        self._fence.acquire()
        self._fence.release()
        self._fence.acquire()
        self._fence.release()
