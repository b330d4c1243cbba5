"""Rows of what lives and ends, such as connections: what is open, what ended, and of that no more than is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..model import Array
from ..model.rows import chosen, stacked


class Lives:
    """Keeps rows: of what is open, as the kernel's table has it now; of what ended, as it came, the newest of it.

    Attributes:
        open: What is open.
        ended: What ended and is kept, oldest first; complete once it was settled.

    Args:
        kind: Of the rows: a struct with a field `told`, which is 0 until a snapshot told of a row.
        most: Rows of what ended that are kept.
        identity: What tells a row from all others: one opaque value for each.
        revise: Called with all that ended, which it may change; what it returns is kept.
        fold: Called with the oldest of those that are too many, before they are let go.
    """

    def __init__(
        self,
        kind: np.dtype[Any],
        most: int,
        identity: Callable[[Array], Array],
        revise: Callable[[Array], Array],
        fold: Callable[[Array], None],
    ) -> None:
        self.open: Array = np.zeros(0, kind)
        self.ended: Array = np.zeros(0, kind)
        self._most = most
        self._identity = identity
        self._revise = revise
        self._fold = fold
        self._pending: list[Array] = []
        self._pending_rows = 0
        self._table_is_new = False
        self._left: list[Array] = []  # what ended since the table was read, while it is new

    def now_open(self, rows: Array) -> None:
        """Takes the kernel's table as it is now."""
        self.open, self._left, self._table_is_new = rows, [], True

    def end(self, rows: Array) -> None:
        """Takes what ended since."""
        if self._table_is_new:
            self._left.append(rows)
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows > self._most:
            self._settle_ended()

    def settle(self) -> None:
        """Puts in order what came: what ended after the table was read is not open, and no more is kept than may be."""
        self._settle_ended()
        if self._left and len(self.open):
            left = np.concatenate([self._identity(rows) for rows in self._left])
            self.open = chosen(self.open, ~np.isin(self._identity(self.open), left))
        self._left, self._table_is_new = [], False

    def told(self) -> None:
        """A snapshot tells of all that ended so far."""
        self.ended["told"] = 1

    def rows(self) -> Array:
        """Copies of all: first of what ended, then of what is open."""
        return stacked([self.ended, self.open])

    def _settle_ended(self) -> None:
        rows = self._revise(stacked([self.ended, *self._pending]) if self._pending else self.ended)
        self._pending, self._pending_rows = [], 0
        surplus = max(len(rows) - self._most, 0)
        if surplus:
            self._fold(rows[:surplus])
            rows = stacked([rows[surplus:]])  # a part would keep the whole in memory
        self.ended = rows
