"""Of a kernel's types, those that a source needs: clang reads them three times, and all of them take it a second.

A declaration is needed where the source names it, where a needed one has it as a member, or where a needed one points
to it by a member that the source names. What else is pointed to may stay incomplete. Should that ever leave out too
much, bcc refuses the source, and it is compiled once more with all types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[A-Za-z_]\w*")
_TAGGED = re.compile(r"\b(?:struct|union) (\w+) ?(\**)(\w*)")
_ENUM = re.compile(r"\benum (\w+)")
_HEAD = re.compile(r"(?:struct|union|enum) (\w+) \{")
_ENUMERATOR = re.compile(r"^\t(\w+) = ", re.MULTILINE)
_TYPEDEF = (re.compile(r"\(\*(\w+)\)\("), re.compile(r"(\w+)\("), re.compile(r"(\w+)(?:\[\d*\])*;$"))
_OF_LIBRARY = re.compile(
    rb"\b(?:(?:struct|union|enum) ([a-z_]\w+)|(__[usb][a-z]*\d+|[us]\d+|[a-z]+_t|BPF_[A-Z0-9_]+))\b"
)


def words_of(texts: Iterable[bytes]) -> set[str]:
    """All identifiers in C sources."""
    return {word.decode() for text in texts for word in re.findall(rb"[A-Za-z_]\w*", text)}


def words_of_library(library: bytes) -> set[str]:
    """Types and constants of the kernel that the headers inside of bcc's library name."""
    return {(tag or word).decode() for tag, word in _OF_LIBRARY.findall(library)}


def prune(header: str, wanted: set[str]) -> str:
    """The declarations of a header that are needed.

    Args:
        header: C types as bpftool writes them: declarations with an empty line between any two.
        wanted: Identifiers of the source.
    """
    blocks = header.split("\n\n")
    tags, names = _index(blocks)
    needed: set[int] = set()
    pending = [index[word] for word in wanted for index in (tags, names) if word in index]
    while pending:
        number = pending.pop()
        if number in needed:
            continue
        needed.add(number)
        block = blocks[number]
        for tag, stars, member in _TAGGED.findall(block):
            if tag in tags and (not stars or member in wanted):
                pending.append(tags[tag])
        pending += [tags[tag] for tag in _ENUM.findall(block) if tag in tags]
        pending += [names[word] for word in _WORD.findall(block) if word in names]
    kept = [block for number, block in enumerate(blocks) if number in needed or _is_cheap(block)]
    return "\n\n".join(kept)


def _index(blocks: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Which declaration has a tag, and which one a typedef's name or an enumerator."""
    tags: dict[str, int] = {}
    names: dict[str, int] = {}
    for number, block in enumerate(blocks):
        head = _HEAD.match(block)
        if head:
            tags[head[1]] = number
        if block.startswith("enum"):
            names.update(dict.fromkeys(_ENUMERATOR.findall(block), number))
        elif block.startswith("typedef"):
            end = block[block.rindex("}") :] if "{" in block else block
            found = next(filter(None, (pattern.search(end) for pattern in _TYPEDEF)), None)
            if found:
                names[found[1]] = number
    return tags, names


def _is_cheap(block: str) -> bool:
    """Directives, and declarations of incomplete types."""
    return block.startswith("#") or ("{" not in block and not block.startswith("typedef"))
