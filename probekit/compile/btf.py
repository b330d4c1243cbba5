"""Just enough of BTF: the ids of functions and of tracepoints' prototypes.

The format is described in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_MAGIC = 0xEB9F
_FUNC, _TYPEDEF = 12, 8
# bytes behind a type's 12-byte head, by kind: fixed, and for each of its vlen entries
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 1, 3, 4, 5, 6, 13, 14, 15, 17, 19
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}


def target_ids(btf: bytes, functions: Iterable[str], tracepoints: Iterable[str]) -> dict[str, int]:
    """The BTF ids that a program attached to these names has to give.

    Args:
        btf: Contents of /sys/kernel/btf/vmlinux.
        functions: Names of kernel functions, for fentry.
        tracepoints: Names of raw tracepoints.

    Returns:
        `fentry:NAME` or `tracepoint:NAME` -> id, for those that exist.

    Raises:
        ValueError: These bytes are not BTF of this machine's byte order.
    """
    if len(btf) < 24:
        raise ValueError("not BTF")
    magic, _version, _flags, head, type_at, type_size, string_at, string_size = struct.unpack_from("=HBBIIIII", btf)
    if magic != _MAGIC:
        raise ValueError("not BTF")
    strings = btf[head + string_at : head + string_at + string_size]
    wanted: dict[tuple[int, int], str] = {}
    for prefix, kind, spelling, names in (
        ("fentry", _FUNC, "{}", functions),
        ("tracepoint", _TYPEDEF, "btf_trace_{}", tracepoints),
    ):
        for name in names:
            at = strings.find(b"\0" + spelling.format(name).encode() + b"\0")
            if at >= 0:
                wanted[kind, at + 1] = f"{prefix}:{name}"
    found: dict[str, int] = {}
    at, end, number = head + type_at, head + type_at + type_size, 1
    unpack = struct.Struct("=III").unpack_from
    while at < end and len(found) < len(wanted):
        name_at, info, _ = unpack(btf, at)
        kind = info >> 24 & 0x1F
        if kind in (_FUNC, _TYPEDEF) and (kind, name_at) in wanted:
            found[wanted[kind, name_at]] = number
        at += 12 + _FIXED.get(kind, 0) + (info & 0xFFFF) * _EACH.get(kind, 0)
        number += 1
    return found
