"""Which types of maps there are, what drains which of them, and which ones a C source may declare at all.

A map that is read as another type than it is overruns the reader's buffers: of a per-CPU hash the kernel writes the
values of all CPUs where one was expected.
"""

from __future__ import annotations

import enum
import re
from typing import Any


class MapType(enum.IntEnum):
    """`enum bpf_map_type` of the kernel's uapi/linux/bpf.h."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


PADDING = "__pad_"
"""How the names of members begin that bcc puts where the compiler leaves a gap."""
MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE: user space may map the map's memory (5.5)."""
ONE_SIDED = 1 << 3 | 1 << 4
"""BPF_F_RDONLY and BPF_F_WRONLY: what of a map user space may not do."""

_WHOLE = re.compile(r"=[iu][1248]")
_WORDS = {
    MapType.HASH: "a hash", MapType.ARRAY: "an array", MapType.PERF_EVENT_ARRAY: "a perf event array",
    MapType.PERCPU_HASH: "a per-CPU hash", MapType.PERCPU_ARRAY: "a per-CPU array", MapType.LRU_HASH: "an LRU hash",
    MapType.LRU_PERCPU_HASH: "a per-CPU LRU hash", MapType.ARRAY_OF_MAPS: "an array of maps",
    MapType.HASH_OF_MAPS: "a hash of maps", MapType.RINGBUF: "a ring buffer",
}  # fmt: skip
A_RING = "BPF_RINGBUF_OUTPUT({name}, PAGES); LAYOUT({name}, struct ...);"
"""How a ring buffer is declared."""
KEYLESS = frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER, MapType.RINGBUF})
"""They have values only."""
DECLARABLE = KEYLESS | {
    MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.ARRAY, MapType.PERCPU_ARRAY,
    MapType.LPM_TRIE, MapType.STACK_TRACE,
}  # fmt: skip
"""What programs can use on their own: nothing in user space has to fill it or describe it to the kernel."""
_INSTEAD = {
    MapType.PERF_EVENT_ARRAY: "nobody reads perf buffers: " + A_RING,
    MapType.PROG_ARRAY: "call functions, static __always_inline, in place of tail calls",
    MapType.ARRAY_OF_MAPS: "declare one map whose key also says which of the maps is meant",
    MapType.HASH_OF_MAPS: "declare one map whose key also says which of the maps is meant",
    MapType.SK_STORAGE: "declare a hash whose key is the socket's address or cookie",
    MapType.TASK_STORAGE: "declare a hash whose key is the thread's id",
    MapType.INODE_STORAGE: "declare a hash whose key is the inode's number",
    MapType.CGRP_STORAGE: "declare a hash whose key is the cgroup's id",
}


def words(kind: int) -> str:
    """What people call a type: `a per-CPU hash`."""
    try:
        known = MapType(kind)
    except ValueError:
        return f"a map of type {kind}"
    return _WORDS.get(known, f"a map of type {known.name.lower()}")


def members(described: Any) -> list[str]:
    """Names of a layout's members; none where it is no struct."""
    return list(described["names"]) if isinstance(described, dict) else []


def is_number(described: Any) -> bool:
    """Whether a layout is a whole number's, or that of an array of such."""
    while isinstance(described, (list, tuple)):
        described = described[0]
    return isinstance(described, str) and (described == "?" or _WHOLE.fullmatch(described) is not None)


def instead(kind: int, name: str) -> str:
    """What to declare in place of a map that is not DECLARABLE; empty where nothing does the same."""
    return _INSTEAD[MapType(kind)].format(name=name) if kind in _INSTEAD else ""
