"""Rows of many fields, moved as whole ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .batch import Array


def stacked(parts: Sequence[Array]) -> Array:
    """Structured arrays of one dtype, one after the other, copied; of a single one, a copy.

    NumPy itself copies each field of each row, and compares the dtypes field by field before: that takes ten times as
    long.

    Args:
        parts: At least one, of shape (n,) each.
    """
    kind = parts[0].dtype
    whole: Array = np.concatenate([opaque(part) for part in parts]).view(kind)
    return whole


def chosen(rows: Array, which: Array) -> Array:
    """Some rows of a structured array, copied as whole ones, as `stacked` does it.

    Args:
        rows: Shape (n,).
        which: Their places, or for each whether it is wanted.
    """
    some: Array = opaque(rows)[which].view(rows.dtype)
    return some


def opaque(rows: Array) -> Array:
    """The same rows, of which NumPy does not know what is in them."""
    return rows.view(f"V{rows.dtype.itemsize}")
