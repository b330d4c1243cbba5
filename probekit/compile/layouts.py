"""C types laid out as the kernel has them, and a check of the compiler that they are.

bpftool (7.1 and others) writes the padding of some structs a few bytes short, `tcp_sock` of Linux 6.12 among them. A
program with such a type reads the field beside the one it means; nothing would tell but the figures. Nor does it say
that an enum has only one byte. So padding is written anew, in bytes, and the compiler is given an assertion for each
field.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterator

from ..machine.btf import Member, Types

_HEAD = re.compile(r"(struct|union) (\w+) \{")
_ENUM = re.compile(r"enum (\w+) \{")
_ENUM_SIZE = 4  # clang's, where nothing else is said
_PADDING = re.compile(r"\t+(?:unsigned )?(?:long|int|short|char)(?: long)?: ?\d+;")
_NUMBERED = re.compile(r"___\d+$")  # bpftool's names for the second type of a name and so on
_WORD = re.compile(r"\w+")


def exact(header: str, types: Types, asserted: Container[str] | None = None) -> str:
    """Declarations with right padding, followed by assertions.

    Args:
        header: C types as bpftool writes them: declarations with an empty line between any two.
        types: The BTF that they were written from.
        asserted: Structs and unions that assertions are wanted for; None for all.
    """
    assertions: list[str] = []
    blocks = header.split("\n\n")
    names = (f"probekit_padding_{number}" for number in itertools.count())
    for number, block in enumerate(blocks):
        enum = _ENUM.match(block)
        if enum and types.enum_size(enum[1]) < _ENUM_SIZE:
            blocks[number] = f"{block[:-1]} __attribute__((packed));"
        head = _HEAD.match(block)
        found = _described(block, head[2], types) if head and "\n" in block else None
        if head and found is not None:
            blocks[number] = "\n".join(_padded(block.split("\n"), types, found, names))
            if asserted is None or head[2] in asserted:
                assertions += _assertions(f"{head[1]} {head[2]}", types, found)
    return "\n\n".join([*blocks, "\n".join(assertions)])


def _described(block: str, tag: str, types: Types) -> int | None:
    """The type that a declaration is of: several may have its name."""
    found = types.structs(_NUMBERED.sub("", tag))
    if len(found) > 1:
        words = set(_WORD.findall(block))
        found = [number for number in found if words.issuperset(m.name for m in types.members(number) if m.name)]
    return found[0] if len(found) == 1 else None


def _padded(lines: list[str], types: Types, struct: int, names: Iterator[str]) -> list[str]:
    """The lines of a struct's declaration, from its head to its end, with padding in bytes."""
    depth = len(lines[0]) - len(lines[0].lstrip("\t")) + 1
    members = iter(types.members(struct))
    result, end, at = [lines[0]], 0, 1
    while at < len(lines) - 1:
        last = _last_line(lines, at, depth)
        if _PADDING.fullmatch(lines[at]):
            at += 1
            continue
        member = next(members, None)
        if member is None:
            break
        gap = member.bit // 8 - -(-end // 8)
        if gap > 0 and not types.is_union(struct):
            result.append("\t" * depth + f"char {next(names)}[{gap}];")
        elif member.bits and member.bit > end and not types.is_union(struct):
            result.append("\t" * depth + f"unsigned char: {member.bit - end};")
        item = lines[at : last + 1]
        inner = types.innermost(member.type)
        result += _padded(item, types, inner, names) if last > at and types.is_composite(inner) else item
        end = member.bit + (member.bits or types.size(member.type) * 8)
        at = last + 1
    gap = types.size(struct) - -(-end // 8)
    if gap > 0 and not types.is_union(struct):
        result.append("\t" * depth + f"char {next(names)}[{gap}];")
    return [*result, lines[-1]]


def _last_line(lines: list[str], at: int, depth: int) -> int:
    """Where the member that begins on a line ends: members of anonymous types have several lines."""
    if not lines[at].endswith("{"):
        return at
    return next(i for i in range(at + 1, len(lines)) if lines[i].startswith("\t" * depth + "}"))


def _assertions(name: str, types: Types, struct: int) -> list[str]:
    fields = [member for member in types.members(struct) if member.name and not member.bits]
    return [
        f'_Static_assert(sizeof({name}) == {types.size(struct)}, "{name}");',
        *(f'_Static_assert({_offset(name, m)} == {m.bit // 8}, "{name} {m.name}");' for m in fields),
    ]


def _offset(name: str, member: Member) -> str:
    return f"__builtin_offsetof({name}, {member.name})"
