"""The document of a snapshot as JSON text, in pieces, column by column.

A table may have 100,000 rows. Made row by row, as values that are encoded then, its text takes several times as long,
and a library that encodes all at once lets no other thread run meanwhile, such as the one that empties ring buffers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..model import Array, Snapshot, Table
from .document import after_tables, before_tables, keys, rounded
from .safe import harmless_json, json_text

_ROWS = 1000  # rows of a piece
_STEP = "  "
_WHOLE = 1e12  # from here on a float has no thousandths worth rounding


def pieces(snapshot: Snapshot, tables: Sequence[Table], ahead: Mapping[str, Any], lines: bool) -> Iterator[str]:
    """The text of a snapshot's document, a newline at its end.

    Args:
        snapshot: What to tell.
        tables: Which of its tables: what it has `shown`, or the `latest` of its figures.
        ahead: Members that come before the document's own.
        lines: A line for each member and row; otherwise all is on one line.
    """
    outer, inner = (f"\n{_STEP}", f"\n{_STEP}{_STEP}") if lines else ("", "")
    separator = "," if lines else ", "
    yield "{"
    first = True
    for name, value in itertools.chain(ahead.items(), before_tables(snapshot).items()):
        yield f"{'' if first else separator}{outer}{json_text(name)}: {_value(value, lines)}"
        first = False
    for table in tables:
        yield f"{separator}{outer}{json_text(table.name)}: {{"
        yield from _rows(table, separator, inner)
        yield f"{outer if len(table.key) else ''}}}"
    for name, value in after_tables(snapshot, tables).items():
        yield f"{separator}{outer}{json_text(name)}: {_value(value, lines)}"
    yield "\n}\n" if lines else "}\n"


def _value(value: Any, lines: bool) -> str:
    text = json_text(rounded(value), indent=len(_STEP) if lines else None)
    return text.replace("\n", f"\n{_STEP}") if lines else text


def _rows(table: Table, separator: str, before: str) -> Iterator[str]:
    """`"key": {"column": value, ...}` for each row. What all rows have in common is made once."""
    varying, between = [_texts(keys(table))], [": {"]
    for place, column in enumerate(table.columns):
        between[-1] += f"{', ' if place else ''}{json_text(column.name)}: "
        if _is_one(column.values):
            between[-1] += next(_column(column.values[:1]))
        else:
            varying.append(_column(column.values))
            between.append("")
    between[-1] += f"}}{separator}{before}"
    yield before if len(table.key) else ""
    end = len(separator) + len(before)  # what the last row has too much
    step, left = 2 * len(varying), len(table.key)
    while left:
        count = min(left, _ROWS)
        left -= count
        parts = [""] * (count * step)
        for place, (texts, fixed) in enumerate(zip(varying, between, strict=True)):
            parts[2 * place :: step] = itertools.islice(texts, count)
            parts[2 * place + 1 :: step] = [fixed] * count
        text = "".join(parts)
        yield text if left else text[:-end]


def _is_one(values: Array) -> bool:
    """Whether all rows have the same value: half of a table's columns often do."""
    return values.dtype.kind in "biufU" and len(values) > 0 and bool((values == values[0]).all())


def _column(values: Array) -> Iterator[str]:
    """Each value of a column as JSON."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        exact = np.where(finite, values, np.nan)
        fine = np.abs(exact) < _WHOLE
        exact[fine] = np.round(exact[fine], 3)
        texts = map(repr, exact.tolist())
        return texts if finite.all() else iter(["null" if text == "nan" else text for text in texts])
    if values.dtype.kind == "b":
        return ("true" if value else "false" for value in values.tolist())
    if values.dtype.kind in "iu":
        return map(str, values.tolist())
    if values.dtype.kind == "U":
        return _texts(values.tolist())
    return (json_text(rounded(value)) for value in values.tolist())


def _texts(texts: list[str]) -> Iterator[str]:
    """Texts as JSON."""
    quoted = map(json.encoder.encode_basestring, texts)
    # that all are harmless is so nearly always, and found out at once
    return quoted if "".join(texts).isprintable() else map(harmless_json, quoted)
