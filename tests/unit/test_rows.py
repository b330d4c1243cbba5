"""Rows moved as whole ones, and what names them."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.aggregate import ends_keys, stacked, unique_keys
from probekit.decode import named
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


def test_keys_that_stand_for_several_rows_get_numbers() -> None:
    assert unique_keys(["a", "b", "a", "a"]).tolist() == ["a", "b", "a #2", "a #3"]
    assert unique_keys([]).tolist() == []
    assert ends_keys(np.array(["x", "x"]), np.array(["y", "y"])).tolist() == ["x -> y", "x -> y #2"]


def test_numbers_are_named_and_what_has_no_name_is_said_as_asked() -> None:
    numbers = np.array([3, 1, 3], np.uint32)
    assert named(numbers, {3: "three"}).tolist() == ["three", "", "three"]
    assert named(numbers, {3: "three"}, "number {}").tolist() == ["three", "number 1", "three"]
    assert named(numbers[:0], {3: "three"}).tolist() == []
