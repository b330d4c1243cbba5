"""Log-linear histograms of nanoseconds: the reader of bpf/include/histogram.h, and the same in NumPy.

Values below 128 have a bucket each; above, every power of two has 64 buckets. A bucket is at most 1/64 of its value
wide, so its middle is at most 0.8 % off. Merging two is adding them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from ..model import SCHEME, Array, Bucket, Distribution

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


@frozen
class Moments:
    """What of nanoseconds is kept exactly.

    Attributes:
        events: Values.
        sum: Of all values, ns.
        squares: Sum of all squares, ns².
        min: The smallest, ns; 0 without events.
        max: The largest, ns.
    """

    events: int = 0
    sum: float = 0
    squares: float = 0
    min: float = 0
    max: float = 0

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Moments of values.

        Args:
            values: Nanoseconds, whole, not negative, below 2^36.
        """
        if not len(values):
            return cls()
        values = values.astype(np.uint64)
        low, high = values & np.uint64(0x3FFFF), values >> np.uint64(18)
        squares = (int((high * high).sum()) << 36) + (int((high * low).sum()) << 19) + int((low * low).sum())
        return cls(len(values), int(values.sum()), squares, int(values.min()), int(values.max()))

    def __add__(self, other: Moments) -> Moments:
        """Moments of both together."""
        if not self.events or not other.events:
            return self if self.events else other
        return Moments(
            self.events + other.events,
            self.sum + other.sum,
            self.squares + other.squares,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    @property
    def mean(self) -> float:
        """Average, ns; 0 without events."""
        return self.sum / self.events if self.events else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of all values, ns; 0 without events."""
        return math.sqrt(max(self.events * self.squares - self.sum**2, 0)) / self.events if self.events else 0.0


class Histogram:
    """Counts of values in log-linear buckets.

    Attributes:
        counts: Shape (1984,), values in each bucket.
        moments: Exact ones, where they are known; otherwise they are taken from the buckets.
    """

    def __init__(self, counts: Array | None = None, moments: Moments | None = None) -> None:
        self.counts: Array = np.zeros(BUCKETS, np.int64) if counts is None else counts.astype(np.int64)
        self.moments = moments

    @classmethod
    def of(cls, buckets: Mapping[str, Any]) -> Histogram:
        """From `buckets` of a distribution in a JSON document; adding `counts` of several merges them.

        Raises:
            ValueError: They are of another scheme.
        """
        if (buckets["scheme"], buckets["unit"]) != (SCHEME, "ns"):
            raise ValueError(f"these are no {SCHEME} buckets of ns")
        histogram = cls()
        for bucket, count in buckets["counts"].items():
            histogram.counts[int(bucket)] = count
        return histogram

    @property
    def events(self) -> int:
        """Values in all buckets."""
        return int(self.counts.sum())

    def add(self, values: Array) -> None:
        """Adds values, and their moments to the exact ones.

        Args:
            values: Nanoseconds, whole, not negative, below 2^36.
        """
        if len(values):
            self.counts += np.bincount(bucket_of(values), minlength=BUCKETS)
            self.moments = (self.moments or Moments()) + Moments.of(values)

    def percentile(self, percent: float) -> float:
        """The value that `percent` of all are not above, ns; between two ranks as NumPy does it by default.

        Raises:
            ValueError: The histogram is empty.
        """
        ranks = np.cumsum(self.counts)
        if not ranks[-1]:
            raise ValueError("an empty histogram has no percentiles")
        place = (int(ranks[-1]) - 1) * percent / 100
        below, above = (
            float(MIDDLE[np.searchsorted(ranks, rank, side="right")]) for rank in (math.floor(place), math.ceil(place))
        )
        moments = self._best()
        return min(max(below + (above - below) * (place - math.floor(place)), moments.min), moments.max)

    def distribution(self, name: str, help: str) -> Distribution:  # noqa: A002
        """The figures in microseconds."""
        events = self.events
        moments = self._best()
        return Distribution(
            name=name,
            unit="us",
            help=help,
            events=events,
            min=moments.min / 1000 if events else None,
            max=moments.max / 1000 if events else None,
            mean=moments.mean / 1000 if events else None,
            std=moments.deviation / 1000 if events else None,
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
            for (low, high), count in zip(itertools.pairwise(edges), parts, strict=True)
        )

    def _best(self) -> Moments:
        """The exact moments, else as the middles of the buckets have them."""
        if self.moments is not None and self.moments.events:
            return self.moments
        used = np.flatnonzero(self.counts)
        if not used.size:
            return Moments()
        counts, middles = self.counts[used].astype(np.float64), MIDDLE[used]
        return Moments(
            int(counts.sum()),
            float(counts @ middles),
            float(counts @ middles**2),
            float(middles[0]),
            float(middles[-1]),
        )
