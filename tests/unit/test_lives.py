"""What lives and ends, as rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.aggregate import Lives, chosen, stacked
from probekit.model import Array

KIND = np.dtype([("who", "u4"), ("address", "u1", 3), ("told", "u1")])


def rows(*who: int) -> Array:
    made = np.zeros(len(who), KIND)
    made["who"] = who
    made["address"][:, 1] = 7
    return made


def lives(most: int, folded: list[int]) -> Lives:
    return Lives(
        KIND, most, lambda rows: rows["who"], lambda rows: rows, lambda rows: folded.extend(rows["who"].tolist())
    )


def test_what_ended_after_the_table_was_read_is_not_open() -> None:
    kept = lives(10, [])
    kept.end(rows(1))  # before: the table's 1 is another one, which came after it
    kept.now_open(rows(1, 2, 3))
    kept.end(rows(2))
    kept.settle()
    assert kept.open["who"].tolist() == [1, 3]
    assert kept.rows()["who"].tolist() == [1, 2, 1, 3]


def test_each_row_is_told_of_once() -> None:
    kept = lives(10, [])
    told = []
    for number in (1, 2):
        kept.end(rows(number))
        kept.settle()
        whole = kept.rows()
        told.append(chosen(whole, whole["told"] == 0)["who"].tolist())
        kept.told()
    assert told == [[1], [2]]


def test_rows_are_copies() -> None:
    kept = lives(10, [])
    kept.end(rows(1))
    kept.settle()
    before = kept.rows()
    kept.told()
    assert before["told"].tolist() == [0]


@given(st.integers(0, 6), st.lists(st.integers(0, 5), max_size=8))
def test_the_newest_are_kept_and_the_others_folded_in_their_order(most: int, sizes: list[int]) -> None:
    folded: list[int] = []
    kept, number = lives(most, folded), 0
    for size in sizes:
        kept.end(rows(*range(number, number + size)))
        number += size
    kept.settle()
    assert folded + kept.ended["who"].tolist() == list(range(number))
    assert len(kept.ended) == min(most, number)
    assert (kept.ended["address"] == [0, 7, 0]).all()


def test_what_ended_can_be_revised_before_it_is_folded() -> None:
    folded: list[int] = []

    def merged(rows: Array) -> Array:
        _, first = np.unique(rows["who"], return_index=True)
        return chosen(rows, np.sort(first))

    kept = Lives(KIND, 2, lambda rows: rows["who"], merged, lambda rows: folded.extend(rows["who"].tolist()))
    kept.end(rows(1, 2, 1))
    kept.end(rows(3, 2))
    kept.settle()
    assert (folded, kept.ended["who"].tolist()) == ([1], [2, 3])


@pytest.mark.parametrize("which", [[2, 0], [], [True, False, True]])
def test_chosen_rows_are_those_that_numpy_chooses(which: list[int]) -> None:
    places = np.array(which, None if which else np.intp)
    every_other = stacked([rows(5, 6, 7), rows(8, 9)])[::2]
    assert chosen(every_other, places)["who"].tolist() == every_other["who"][places].tolist()
    assert (chosen(every_other, places)["address"] == [0, 7, 0]).all()
