"""Values, keys and names in messages: as TOML spells them, on one line, safe to print, and no longer than helps."""

from __future__ import annotations

import datetime
import re
from typing import Any

LONGEST = 200
"""Characters of what a user wrote that a message repeats."""

WHOLE = range(-(1 << 63), 1 << 63)
"""The whole numbers that TOML has."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def printable(text: str, longest: int = LONGEST) -> str:
    """A text on one line, with TOML's escapes for what is not to be printed, shortened where it is long."""
    made = "".join(c if c.isprintable() else _escaped(c) for c in text[: longest + 1])
    return made if len(text) <= longest else f"{made[:longest]}…"


def lines(text: str) -> str:
    """A text of several lines, each of them safe to print."""
    return "\n".join(printable(line.expandtabs(), 10_000) for line in text.split("\n"))


def key(name: str) -> str:
    """A key of a TOML path."""
    return printable(name) if _BARE.fullmatch(name) else string(name)


def string(text: str) -> str:
    """A text as a TOML string."""
    return f'"{printable(text.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34)))}"'


def show(value: Any) -> str:
    """A value of a TOML document as TOML has it, shortened where it is long."""
    if isinstance(value, str):
        return string(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):  # in hexadecimal Python has no limit of digits
        return str(value) if value in WHOLE else printable(f"{value:#x}", 40)
    if isinstance(value, (list, tuple)):
        return printable(f"[{', '.join(show(entry) for entry in value)}]")
    if isinstance(value, dict):
        entries = ", ".join(f"{key(name)} = {show(entry)}" for name, entry in value.items())
        return printable(f"{{{entries}}}")
    if isinstance(value, (datetime.date, datetime.time)):  # also datetime
        return value.isoformat()
    return printable(str(value))


def _escaped(character: str) -> str:
    number = ord(character)
    return _ESCAPES.get(character) or (f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")
