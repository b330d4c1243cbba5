"""Which types of maps there are, what drains which of them, and which ones a C source may declare at all.

A map that is read as another type than it is overruns the reader's buffers: of a per-CPU hash the kernel writes the
values of all CPUs where one was expected.
"""

from __future__ import annotations

import enum

from ..model import MapSpec, SourceKind


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


MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE: user space may map the map's memory (5.5)."""
ONE_SIDED = 1 << 3 | 1 << 4
"""BPF_F_RDONLY and BPF_F_WRONLY: what of a map user space may not do."""

_WORDS = {
    MapType.HASH: "a hash", MapType.ARRAY: "an array", MapType.PERF_EVENT_ARRAY: "a perf event array",
    MapType.PERCPU_HASH: "a per-CPU hash", MapType.PERCPU_ARRAY: "a per-CPU array", MapType.LRU_HASH: "an LRU hash",
    MapType.LRU_PERCPU_HASH: "a per-CPU LRU hash", MapType.ARRAY_OF_MAPS: "an array of maps",
    MapType.HASH_OF_MAPS: "a hash of maps", MapType.RINGBUF: "a ring buffer",
}  # fmt: skip
DRAINED = {
    SourceKind.RING: frozenset({MapType.RINGBUF}),
    SourceKind.TABLE: frozenset({MapType.ARRAY}),
    SourceKind.PERCPU: frozenset({MapType.PERCPU_ARRAY}),
    SourceKind.HASH: frozenset({MapType.HASH, MapType.LRU_HASH}),
}
"""What each kind of source can be; a table has to be MMAPABLE, too."""
DECLARATIONS = {
    SourceKind.RING: "BPF_RINGBUF_OUTPUT({name}, PAGES); LAYOUT({name}, struct ...);",
    SourceKind.TABLE: 'BPF_F_TABLE("array", u32, struct ..., {name}, ENTRIES, BPF_F_MMAPABLE);',
    SourceKind.PERCPU: "BPF_PERCPU_ARRAY({name}, struct ..., ENTRIES);",
    SourceKind.HASH: 'BPF_HASH({name}, KEY, VALUE, ENTRIES); or BPF_TABLE("lru_hash", KEY, VALUE, {name}, ENTRIES);',
}
KEYLESS = frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER, MapType.RINGBUF})
"""They have values only."""
DECLARABLE = (
    frozenset().union(*DRAINED.values())
    | KEYLESS
    | {MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE, MapType.STACK_TRACE}
)
"""What programs can use on their own: nothing in user space has to fill it or describe it to the kernel."""
_INSTEAD = {
    MapType.PERF_EVENT_ARRAY: "nobody reads perf buffers: " + DECLARATIONS[SourceKind.RING],
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


def drains(kind: SourceKind, spec: MapSpec) -> bool:
    """Whether a source of a kind may be this map."""
    return spec.type in DRAINED[kind] and (kind is not SourceKind.TABLE or bool(spec.flags & MMAPABLE))


def kinds_of(spec: MapSpec) -> list[SourceKind]:
    """The kinds of source that may be this map."""
    return [kind for kind in SourceKind if drains(kind, spec)]


def instead(kind: int, name: str) -> str:
    """What to declare in place of a map that is not DECLARABLE; empty where nothing does the same."""
    return _INSTEAD[MapType(kind)].format(name=name) if kind in _INSTEAD else ""
