"""Maps: made, read and written."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from pathlib import Path

from .library import call, library

_BATCH = 1 << 12  # entries


def create_map(kind: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int) -> int:
    """A new map's descriptor."""
    create = library().bcc_create_map
    return call(create, kind, name[:15].encode(), key_size, value_size, max_entries, flags)


def update(fd: int, key: bytes, value: bytes) -> None:
    """Sets the value of a map's key."""
    call(library().bpf_update_elem, fd, key, value, ctypes.c_ulonglong(0))


def lookup(fd: int, key: bytes, size: int) -> bytes:
    """A map's value; of a per-CPU map, of all CPUs, each rounded up to 8 bytes."""
    value = ctypes.create_string_buffer(size)
    call(library().bpf_lookup_elem, fd, key, value)
    return value.raw


def items(fd: int, key_size: int, value_size: int, entries: int) -> tuple[bytearray, bytearray]:
    """All keys and all values of a hash or array, in batches (BPF_MAP_LOOKUP_BATCH, 5.6)."""
    keys, values = bytearray(), bytearray()
    size = min(max(entries, 1024), _BATCH)
    position, following = None, ctypes.create_string_buffer(max(key_size, 8))
    while True:
        key_buffer, value_buffer = (ctypes.create_string_buffer(size * each) for each in (key_size, value_size))
        count = ctypes.c_uint32(size)
        try:
            call(library().bpf_lookup_batch, fd, position, following, key_buffer, value_buffer, ctypes.byref(count))
            more = True
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a batch has to hold the fullest bucket
                size *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            more = False
        keys += memoryview(key_buffer)[: count.value * key_size]
        values += memoryview(value_buffer)[: count.value * value_size]
        if not more:
            return keys, values
        position = ctypes.create_string_buffer(following.raw)


def items_singly(fd: int, key_size: int, value_size: int) -> Iterator[bytes]:
    """Each key with its value, of a map that hands out no batches. What goes meanwhile is left out."""
    key, following = None, ctypes.create_string_buffer(key_size)
    value = ctypes.create_string_buffer(value_size)
    seen = set()
    while library().bpf_get_next_key(fd, key, following) == 0 and following.raw not in seen:
        key = ctypes.create_string_buffer(following.raw, key_size)
        seen.add(key.raw)  # a key that went is followed by the first one
        if library().bpf_lookup_elem(fd, key, value) == 0:
            yield key.raw + value.raw


def locked_bytes(fd: int) -> int:
    """Memory that a map takes, as the kernel says it in fdinfo."""
    with Path(f"/proc/self/fdinfo/{fd}").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)
