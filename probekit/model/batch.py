"""What was drained, and the same decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

if TYPE_CHECKING:  # programs are attached before NumPy is imported, which takes longer than all the rest
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


@frozen
class Batch:
    """What one drain of one source brought.

    Attributes:
        source: The map's name.
        data: A structured array. One dimension, but (CPUs, entries) for a per-CPU map.
        taken: When, ns of CLOCK_MONOTONIC as programs read it (bpf_ktime_get_ns).
    """

    source: str
    data: Array
    taken: int = 0


@frozen
class Columns:
    """A decoded batch.

    Attributes:
        source: The map's name.
        values: One array a column, all of one length.
        taken: When the batch was, which the core says; ns of CLOCK_MONOTONIC as programs read it.
    """

    source: str
    values: Mapping[str, Array]
    taken: int = 0
