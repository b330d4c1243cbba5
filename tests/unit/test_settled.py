from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probekit.drain.settled import settled
from probekit.model import Array

PAIR = np.dtype([("low", "u8"), ("high", "u8")])


class Shared:
    """Memory in which somebody writes between two copies of it."""

    def __init__(self, slots: int, writes: Callable[[int, Array], None]) -> None:
        self.memory, self.reads, self._writes = np.zeros(slots, PAIR), 0, writes

    def __getitem__(self, places: Array) -> Any:
        self._writes(self.reads, self.memory)
        self.reads += 1
        return self.memory[places]


def test_what_nobody_changes_is_copied_twice() -> None:
    shared = Shared(9, lambda read, memory: None)
    shared.memory["low"] = np.arange(9)
    copies = settled(shared, np.array([7, 2]))  # type: ignore[arg-type]
    assert copies["low"].tolist() == [7, 2]
    assert shared.reads == 2


def test_a_slot_that_is_copied_in_the_middle_of_a_change_is_copied_again() -> None:
    def carry(read: int, memory: Array) -> None:
        if read == 0:
            memory[3] = (0, 0)  # 2^64, and the carry is not there yet
        if read == 1:
            memory[3] = (0, 1)

    shared = Shared(5, carry)
    copies = settled(shared, np.arange(5))  # type: ignore[arg-type]
    assert copies[3].tolist() == (0, 1)
    assert shared.reads == 3


def test_a_slot_that_never_rests_is_as_it_was_last_and_the_others_are_right() -> None:
    def busy(read: int, memory: Array) -> None:
        memory[0] = (read, read)

    copies = settled(Shared(2, busy), np.arange(2))  # type: ignore[arg-type]
    assert copies[0]["low"] == copies[0]["high"] > 10
    assert copies[1].tolist() == (0, 0)


def test_many_slots_are_copied_in_their_order() -> None:
    shared = np.zeros(5000, PAIR)
    shared["low"] = np.arange(5000)
    places = np.arange(4999, 0, -2)
    assert (settled(shared, places)["low"] == places).all()


def test_nothing_is_copied_of_nothing() -> None:
    assert len(settled(np.zeros(4, PAIR), np.zeros(0, np.intp))) == 0
