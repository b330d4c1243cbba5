"""Rows moved as whole ones."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.aggregate import stacked
from probekit.model import Array

_KIND = np.dtype({"names": ["a", "b"], "formats": ["u1", ("u2", 3)], "offsets": [0, 4], "itemsize": 12})


def _rows(count: int, first: int = 0) -> Array:
    rows = np.zeros(count, _KIND)
    rows["a"], rows["b"] = np.arange(first, first + count), first
    return rows


@pytest.mark.parametrize("counts", [(0,), (3,), (2, 0, 1), (0, 0)])
def test_rows_of_all_parts_follow_each_other(counts: tuple[int, ...]) -> None:
    parts = [_rows(count, 10 * place) for place, count in enumerate(counts)]
    whole = stacked(parts)
    assert whole.dtype == _KIND
    for name in ("a", "b"):
        assert whole[name].tolist() == np.concatenate([part[name] for part in parts]).tolist()


def test_what_is_stacked_is_a_copy() -> None:
    part = _rows(4)
    every_other = part[::2]
    whole = stacked([every_other])
    whole["a"] = 99
    assert part["a"].tolist() == [0, 1, 2, 3]
    assert whole["b"].tolist() == every_other["b"].tolist()
