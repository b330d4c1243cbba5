"""Text that comes from outside, made harmless for whoever reads it: terminals, spreadsheets, parsers of JSON.

Processes name themselves, and people name cgroups, devices and chains: any of these may hold escape sequences,
formulas, or characters that turn the direction of a line. Harmless is what `str.isprintable` says is printable. That
leaves out all controls, C1 included, formats (bidirectional controls, zero-width ones, the byte order mark) and
separators of lines.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SPECIAL = re.compile(r"[^\n -~]")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # the last four are the first ones, of full width
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    r"""A text on one line, without anything that does more than stand there: `\x1b` for an escape character.

    A lone surrogate becomes a replacement character.
    """
    return text if text.isprintable() else "".join(map(_visible, well_formed(text)))


def cell(value: Any) -> Any:
    """A value for a cell of CSV: text is `visible`, and what a spreadsheet takes for a formula has a ' before it.

    Args:
        value: Numbers and None are left as they are; nobody outside makes them.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    text = visible(str(value))
    return f"'{text}" if _FORMULA.match(text) else text


def well_formed(text: str) -> str:
    """A text with a replacement character for each lone surrogate, which no encoding has."""
    return text if text.isprintable() else _SURROGATE.sub(_REPLACEMENT, text)


def json_text(value: Any, indent: int | None = None) -> str:
    r"""JSON of plain values, with `\u009b` for what is not harmless; parsers get the same texts back.

    But a lone surrogate, which is no text, becomes a replacement character.

    Raises:
        TypeError: Something in it has no JSON.
        ValueError: A number is not finite, or a value contains itself.
    """
    return harmless_json(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def harmless_json(text: str) -> str:
    """JSON whose texts are as they came, made as `json_text` says."""
    if text.replace("\n", "").isprintable():  # nearly always, and many times as fast to find out
        return text
    return _SPECIAL.sub(_in_json, well_formed(text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _in_json(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]
