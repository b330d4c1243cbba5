"""BPF queues as a source: each element is delivered once."""

import ctypes
import errno
import os
import platform
import struct
from typing import ClassVar

import numpy as np
from attrs import frozen
from probekit import Array, Batch, LiveMap, Source
from probekit.drain import Reader, dtype_of

_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_LOOKUP_AND_DELETE = 21
_QUEUE = 22  # BPF_MAP_TYPE_QUEUE


@frozen
class Queue(Source):
    """A queue.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({_QUEUE})
    declaration: ClassVar[str] = "BPF_QUEUE({name}, struct ..., ENTRIES);"

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Elements: shape (rows,)."""
        return np.zeros(rows, dtype_of(live.value))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        return _QueueReader(self.name, live)


class _QueueReader:
    def __init__(self, name: str, live: LiveMap) -> None:
        self._name = name
        self._live = live

    def read(self) -> Batch | None:
        """Takes what is there now, and no more than the queue can hold: who keeps filling it does not keep us."""
        value = ctypes.create_string_buffer(self._live.spec.value_size)
        attributes = struct.pack("=IIQQQ", self._live.fd, 0, 0, ctypes.addressof(value), 0)
        found = []
        for _ in range(self._live.spec.max_entries):
            if not _pop(attributes):
                break
            found.append(value.raw)
        return Batch(self._name, np.frombuffer(b"".join(found), dtype_of(self._live.value))) if found else None

    def close(self) -> None:
        """Nothing is held."""


def _pop(attributes: bytes) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_BPF, _LOOKUP_AND_DELETE, attributes, len(attributes)) == 0:
        return True
    error = ctypes.get_errno()
    if error == errno.ENOENT:  # it is empty
        return False
    raise OSError(error, os.strerror(error))
