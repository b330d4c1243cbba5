"""Log-linear histograms of nanoseconds: the reader of bpf/include/histogram.h, and the same in NumPy.

Values below 128 have a bucket each; above, every power of two has 64 buckets. A bucket is at most 1/64 of its value
wide, so its middle is at most 0.8 % off. Merging two is adding them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..model import Array, Bucket, Distribution

BITS = 6
PER_OCTAVE = 1 << BITS
BUCKETS = 1984
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)

_MILLISECOND = 1_000_000
_COARSE_MS = (0, 1, 5, 10, 50, 100)

_index = np.arange(BUCKETS, dtype=np.int64)
_shift = np.maximum((_index >> BITS) - 1, 0)
LOWEST: Array = np.where(_index < 2 * PER_OCTAVE, _index, ((_index & PER_OCTAVE - 1) + PER_OCTAVE) << _shift)
"""The smallest value of each bucket."""
MIDDLE: Array = LOWEST + ((1 << _shift) - 1) / 2
"""The middle of each bucket."""


def bucket_of(values: Array) -> Array:
    """The bucket of each value.

    Args:
        values: Nanoseconds, whole and not negative.
    """
    values = values.astype(np.int64)
    octave = np.frexp(values.astype(np.float64))[1] - 1  # floor(log2), exact below 2^53
    shift = np.maximum(octave - BITS, 0)
    buckets: Array = np.minimum((shift << BITS) + (values >> shift), BUCKETS - 1)
    return buckets


class Histogram:
    """A histogram that also keeps what is exact: number, sum, sum of squares, smallest and largest.

    Attributes:
        counts: Shape (1984,), values in each bucket.
        events: Values.
        sum: Of all values, ns.
        squares: Sum of all squares, ns².
        min: The smallest, ns; 0 without events.
        max: The largest, ns.
    """

    def __init__(self) -> None:
        self.counts: Array = np.zeros(BUCKETS, np.int64)
        self.events = 0
        self.sum = 0
        self.squares = 0
        self.min = 0
        self.max = 0

    def add(self, values: Array) -> None:
        """Adds values.

        Args:
            values: Nanoseconds, whole, not negative, below 2^36.
        """
        if not len(values):
            return
        values = values.astype(np.uint64)
        low, high = values & np.uint64(0x3FFFF), values >> np.uint64(18)
        squares = (int((high * high).sum()) << 36) + (int((high * low).sum()) << 19) + int((low * low).sum())
        self._add(
            np.bincount(bucket_of(values), minlength=BUCKETS), len(values), int(values.sum()), squares,
            int(values.min()), int(values.max()),
        )  # fmt: skip

    def add_struct(self, row: Any) -> None:
        """Adds a `struct distribution` of the kernel."""
        self._add(
            row["buckets"].astype(np.int64), int(row["events"]), int(row["sum"]),
            (int(row["square_high"]) << 64) + int(row["square_low"]), int(row["min"]), int(row["max"]),
        )  # fmt: skip

    def _add(self, counts: Array, events: int, total: int, squares: int, low: int, high: int) -> None:
        if not events:
            return
        self.min = min(self.min, low) if self.events else low
        self.max = max(self.max, high)
        self.counts += counts
        self.events += events
        self.sum += total
        self.squares += squares

    def percentile(self, percent: float) -> float:
        """The value that `percent` of all are not above, ns; between two ranks as NumPy does it by default.

        Raises:
            ValueError: The histogram is empty.
        """
        if not self.events:
            raise ValueError("an empty histogram has no percentiles")
        ranks = np.cumsum(self.counts)
        last = int(ranks[-1]) - 1
        place = last * percent / 100
        below, above = (
            float(MIDDLE[np.searchsorted(ranks, rank, side="right")]) for rank in (math.floor(place), math.ceil(place))
        )
        value = below + (above - below) * (place - math.floor(place))
        return min(max(value, self.min), self.max)

    def distribution(self, name: str, help: str) -> Distribution:  # noqa: A002
        """The figures in microseconds."""
        events = self.events
        mean = self.sum / events if events else None
        return Distribution(
            name=name,
            unit="us",
            help=help,
            events=events,
            min=self.min / 1000 if events else None,
            max=self.max / 1000 if events else None,
            mean=mean / 1000 if mean is not None else None,
            std=float(deviation(events, self.sum, self.squares)) / 1000 if events else None,
            percentiles={f"p{percent:g}": self.percentile(percent) / 1000 for percent in PERCENTILES} if events else {},
            buckets=self.coarse(),
            counts=self.counts.copy(),
        )

    def coarse(self) -> tuple[Bucket, ...]:
        """Six buckets that people read, in microseconds."""
        edges = [*_COARSE_MS, math.inf]
        positions = np.searchsorted(LOWEST, [edge * _MILLISECOND for edge in _COARSE_MS])
        parts = np.add.reduceat(self.counts, positions)
        return tuple(
            Bucket(f"{low}-{high}ms" if high < math.inf else f"{low}+ms", low * 1000.0, high * 1000.0, int(count))
            for low, high, count in zip(edges, edges[1:], parts, strict=False)
        )


def deviation(events: int, total: int, squares: int) -> float:
    """Standard deviation of all values, from exact integer sums."""
    return math.sqrt(max(events * squares - total * total, 0)) / events if events else 0.0
