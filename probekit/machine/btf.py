"""Just enough of BTF: the ids of functions and typedefs, enums, and the layouts of structs.

The format is described in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from attrs import frozen

_MAGIC = 0xEB9F
_POINTER_SIZE = struct.calcsize("P")
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _PROTO = range(1, 14)
_VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(14, 20)
_SIZED = frozenset((_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64))
_TRANSPARENT = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))
# bytes behind a type's 12-byte head, by kind: fixed, and for each of its vlen entries
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_HEAD = struct.Struct("=III")


@frozen
class Member:
    """A member of a struct or union.

    Attributes:
        name: Empty where it is anonymous.
        type: The id of its type.
        bit: Where it begins, in bits.
        bits: How many bits a bit field has; 0 for other members.
    """

    name: str
    type: int
    bit: int
    bits: int


class Types:
    """The types of a kernel, or what one of its modules adds to them.

    Args:
        btf: Contents of /sys/kernel/btf/vmlinux, or of the module's file beside it.
        base: The kernel's, for a module: its names go on where the kernel's end. Its ids are counted from 1 here.

    Raises:
        ValueError: These bytes are not BTF of this machine's byte order.
    """

    def __init__(self, btf: bytes, base: bytes = b"") -> None:
        at, end, strings = _sections(btf)
        self._btf = btf
        self._strings = _sections(base)[2] + strings if base else strings
        self._at = [0]  # by id; 0 is void
        self._named: dict[tuple[int, int], list[int]] = {}
        unpack, fixed, each, places, named = _HEAD.unpack_from, _FIXED.get, _EACH.get, self._at, self._named
        while at < end:
            name_at, info, _ = unpack(btf, at)
            kind = info >> 24 & 0x1F
            if name_at:
                named.setdefault((kind, name_at), []).append(len(places))
            places.append(at)
            at += 12 + fixed(kind, 0) + (info & 0xFFFF) * each(kind, 0)

    def find(self, kind: int, name: str) -> list[int]:
        """The ids of the types of a kind and name."""
        place = self._strings.find(b"\0" + name.encode() + b"\0")
        # a string may also be the end of a longer one, but no compiler that writes BTF for kernels makes use of it
        return self._named.get((kind, place + 1), []) if place >= 0 else []

    def structs(self, name: str) -> list[int]:
        """The ids of the structs and unions of a name."""
        return self.find(_STRUCT, name) + self.find(_UNION, name)

    def enum_size(self, name: str) -> int:
        """The size of an enum, in bytes; 4, what C says, where there is none of that name."""
        return self.size(next(iter(self.find(_ENUM, name)), 0)) or 4

    def enums(self) -> list[str]:
        """The names of all enums."""
        return [self._name(name_at) for kind, name_at in self._named if kind in (_ENUM, _ENUM64)]

    def enumerators(self, name: str) -> dict[int, str]:
        """The names of an enum's values, of two for one value the first; empty where there is no such enum."""
        found: dict[int, str] = {}
        for kind in (_ENUM, _ENUM64):
            for number in self.find(kind, name):
                at = self._at[number]
                for entry in range(_HEAD.unpack_from(self._btf, at)[1] & 0xFFFF):
                    name_at, low, high = _HEAD.unpack_from(self._btf, at + 12 + entry * _EACH[kind])
                    found.setdefault(low if kind == _ENUM else high << 32 | low, self._name(name_at))
        return found

    def is_union(self, number: int) -> bool:
        """Whether a type is a union."""
        return self._kind(number) == _UNION

    def is_composite(self, number: int) -> bool:
        """Whether a type is a struct or a union."""
        return self._kind(number) in (_STRUCT, _UNION)

    def members(self, number: int) -> Iterator[Member]:
        """The members of a struct or union, as declared."""
        at = self._at[number]
        _, info, _ = _HEAD.unpack_from(self._btf, at)
        for entry in range(info & 0xFFFF):
            name_at, kind, bit = _HEAD.unpack_from(self._btf, at + 12 + entry * 12)
            if info >> 31:  # there are bit fields
                yield Member(self._name(name_at), kind, bit & 0xFFFFFF, bit >> 24)
            else:
                yield Member(self._name(name_at), kind, bit, 0)

    def size(self, number: int) -> int:
        """The size of a type, in bytes."""
        count = 1
        while True:
            if number == 0:
                return 0
            _, info, value = _HEAD.unpack_from(self._btf, self._at[number])
            kind = info >> 24 & 0x1F
            if kind in _SIZED:
                return count * int(value)
            if kind == _PTR:
                return count * _POINTER_SIZE
            if kind == _ARRAY:
                number, _, length = _HEAD.unpack_from(self._btf, self._at[number] + 12)
                count *= length
            elif kind in _TRANSPARENT:
                number = value
            else:
                return 0

    def innermost(self, number: int) -> int:
        """What a type is an array of, or another name for."""
        while True:
            _, info, value = _HEAD.unpack_from(self._btf, self._at[number])
            kind = info >> 24 & 0x1F
            if kind == _ARRAY:
                number = _HEAD.unpack_from(self._btf, self._at[number] + 12)[0]
            elif kind in _TRANSPARENT:
                number = value
            else:
                return number

    def _kind(self, number: int) -> int:
        return int(_HEAD.unpack_from(self._btf, self._at[number])[1]) >> 24 & 0x1F

    def _name(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()


def _sections(btf: bytes) -> tuple[int, int, bytes]:
    """Where the types begin and end, and the strings."""
    if len(btf) < 24:
        raise ValueError("not BTF")
    magic, _version, _flags, head, type_at, type_size, string_at, string_size = struct.unpack_from("=HBBIIIII", btf)
    if magic != _MAGIC:
        raise ValueError("not BTF")
    strings = btf[head + string_at : head + string_at + string_size]
    return head + type_at, head + type_at + type_size, strings


def target_ids(types: Types, names: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The BTF ids that programs attached to these have to give.

    Args:
        types: The kernel's.
        names: `function` or `typedef`, and a name.

    Returns:
        `function:NAME` or `typedef:NAME` -> id, for those that exist.
    """
    kinds = {"function": _FUNC, "typedef": _TYPEDEF}
    found = {f"{kind}:{name}": types.find(kinds[kind], name) for kind, name in names}
    return {key: numbers[0] for key, numbers in found.items() if numbers}


def named_ids(types: Types, words: Iterable[str]) -> dict[str, int]:
    """The BTF ids that a C source asks for by `KFUNC_name`, a kernel function, or `TYPE_name`, a struct.

    Args:
        types: The kernel's.
        words: Identifiers of the source.

    Returns:
        Identifier -> id, for those that exist.
    """
    kinds = {"KFUNC": _FUNC, "TYPE": _STRUCT}
    split = {word: word.partition("_") for word in words if word.startswith(tuple(f"{kind}_" for kind in kinds))}
    found = {word: types.find(kinds[kind], name) for word, (kind, _, name) in split.items()}
    return {word: numbers[0] for word, numbers in found.items() if numbers}
