"""What sources are read into batches. Stage 6.

Each kind is a class. NumPy, which readers need, is imported when the first one is opened: a plan has no use for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from ..errors import CompileError
from ..machine.map_types import A_RING, MMAPABLE, MapType, is_number, members
from ..model import Array, LiveMap, MapSpec, Reader, Source

if TYPE_CHECKING:
    import numpy as np


@frozen
class Ring(Source):
    """A ring buffer: its records, each delivered once. It is emptied when a program wakes its reader, too.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.RINGBUF})
    declaration: ClassVar[str] = A_RING
    described: ClassVar[bool] = True

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Records: shape (rows,)."""
        return _zeros((rows,), dtype_of(live.value))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Maps the buffer."""
        from .ring import RingReader

        return RingReader(self, live, cpus)


@frozen
class Slots(Source):
    """A mappable array of slots, read without a system call: the live ones, as they are now.

    Attributes:
        name: The map's.
        live: The field that is 0, in all its elements, where the slot is free.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.ARRAY})
    declaration: ClassVar[str] = 'BPF_F_TABLE("array", u32, struct ..., {name}, ENTRIES, BPF_F_MMAPABLE);'

    name: str
    live: str

    @classmethod
    def fits(cls, spec: MapSpec) -> bool:
        """Whether it is an array that can be mapped."""
        return spec.type in cls.types and bool(spec.flags & MMAPABLE)

    def check(self, spec: MapSpec) -> None:
        """Refuses a field that does not tell which slots are live.

        Raises:
            CompileError: There is no such field, or it is no number.
        """
        there = members(spec.value)
        if self.live not in there:
            raise CompileError(
                f"a slot of {self.name} has no field {self.live!r}, which says whether it is in use "
                f"(available: {', '.join(there) or 'none, it is no struct'})",
                f'name a field that is 0 in free slots: Slots("{self.name}", live="...")',
            )
        if not is_number(spec.value["formats"][there.index(self.live)]):
            raise CompileError(
                f"the field {self.live} of {self.name}, which says whether a slot is in use, is no number",
                "name a whole number, or an array of such, that is 0 in free slots",
            )

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Slots: shape (rows,)."""
        return _zeros((rows,), dtype_of(live.value))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Maps the array."""
        from .maps import SlotsReader

        return SlotsReader(self, self.live, live)


@frozen
class ArrayMap(Source):
    """An array: all entries, as they are now.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.ARRAY})
    declaration: ClassVar[str] = "BPF_ARRAY({name}, struct ..., ENTRIES);"

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Entries: shape (entries,)."""
        return _zeros((live.spec.max_entries,), dtype_of(live.value))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        from .maps import CopyReader, array

        return CopyReader(self, live, lambda: array(live))


@frozen
class PerCpuArray(Source):
    """A per-CPU array, as it is now.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.PERCPU_ARRAY})
    declaration: ClassVar[str] = "BPF_PERCPU_ARRAY({name}, struct ..., ENTRIES);"

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Entries: shape (CPUs, entries)."""
        return _zeros((cpus, live.spec.max_entries), dtype_of(live.value))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        from .maps import CopyReader, per_cpu_array

        return CopyReader(self, live, lambda: per_cpu_array(live, cpus))


@frozen
class Hash(Source):
    """A hash, LRU or not: fields `key` and `value` of all entries, as they are now.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.HASH, MapType.LRU_HASH})
    declaration: ClassVar[str] = (
        'BPF_HASH({name}, KEY, VALUE, ENTRIES); or BPF_TABLE("lru_hash", KEY, VALUE, {name}, ENTRIES);'
    )
    keyed: ClassVar[bool] = True

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Entries: shape (rows,)."""
        return _zeros((rows,), _entry(live))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        from .maps import CopyReader, hash_entries

        return CopyReader(self, live, lambda: hash_entries(live))


@frozen
class PerCpuHash(Source):
    """A per-CPU hash, LRU or not: fields `key` and `value` of all entries, `value` of shape (CPUs,), as they are now.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
    declaration: ClassVar[str] = (
        'BPF_TABLE("percpu_hash", KEY, VALUE, {name}, ENTRIES); or the same with "lru_percpu_hash"'
    )
    keyed: ClassVar[bool] = True

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Entries: shape (rows,)."""
        return _zeros((rows,), _entry(live, cpus))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        from .maps import CopyReader, per_cpu_hash_entries

        return CopyReader(self, live, lambda: per_cpu_hash_entries(live, cpus))


@frozen
class Stacks(Source):
    """Stack traces: fields `key`, the id that `get_stackid` returned, and `value`, addresses, 0 after the last one.

    Attributes:
        name: The map's.
    """

    types: ClassVar[frozenset[int]] = frozenset({MapType.STACK_TRACE})
    declaration: ClassVar[str] = "BPF_STACK_TRACE({name}, ENTRIES);"
    keyed: ClassVar[bool] = True

    name: str

    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Traces: shape (rows,)."""
        return _zeros((rows,), _entry(live))

    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Holds nothing."""
        from .maps import CopyReader, stack_traces

        return CopyReader(self, live, lambda: stack_traces(live))


def dtype_of(layout: Any) -> np.dtype[Any]:
    """The NumPy dtype of a layout.

    Args:
        layout: Of a map's keys or values, as `LiveMap` and its `spec` have it.
    """
    from .layout import as_dtype

    return as_dtype(layout)


def _entry(live: LiveMap, cpus: int = 0) -> np.dtype[Any]:
    from .layout import entry

    return entry(live, cpus)


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    import numpy as np

    return np.zeros(shape, dtype)


__all__ = [
    "ArrayMap", "Hash", "PerCpuArray", "PerCpuHash", "Reader", "Ring", "Slots", "Stacks", "dtype_of",
]  # fmt: skip
