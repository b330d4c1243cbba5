"""Log-linear histograms: how exact they are, and that parts add up to the whole."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.aggregate import Histogram, Moments
from probekit.aggregate.histogram import BUCKETS, LOWEST, MIDDLE, PERCENTILES, bucket_of
from probekit.model import Array

_LIMIT = 1 << 36
_values = st.integers(0, _LIMIT - 1) | st.builds(
    lambda bit, offset: min(max((1 << bit) + offset, 0), _LIMIT - 1), st.integers(0, 36), st.integers(-2, 2)
)


def _array(values: list[int]) -> Array:
    return np.array(values, dtype=np.uint64)


def _of(values: Array) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def _kernel_bucket(value: int) -> int:
    """histogram_bucket of bpf/include/histogram.h."""
    shift = max(value.bit_length() - 7, 0)
    return (shift << 6) + (value >> shift)


def _kernel_counts(values: list[int]) -> Array:
    """A `struct histogram` of the kernel."""
    counts = np.zeros(BUCKETS, np.uint64)
    for value in values:
        counts[_kernel_bucket(value)] += 1
    return counts


def _exactly(values: list[int]) -> Moments:
    if not values:
        return Moments()
    return Moments(len(values), sum(values), sum(value * value for value in values), min(values), max(values))


def test_the_buckets_cover_every_value_below_2_36_without_a_gap() -> None:
    assert bucket_of(LOWEST).tolist() == list(range(BUCKETS))
    assert bucket_of(LOWEST[1:] - 1).tolist() == list(range(BUCKETS - 1))
    assert bucket_of(_array([0, _LIMIT - 1])).tolist() == [0, BUCKETS - 1]


@given(st.lists(_values, min_size=1))
@settings(derandomize=True, deadline=None)
def test_a_value_is_in_the_bucket_that_begins_below_it_and_that_the_kernel_takes(values: list[int]) -> None:
    buckets = bucket_of(_array(values))
    assert buckets.tolist() == [_kernel_bucket(value) for value in values]
    assert (LOWEST[buckets] <= values).all()
    above = np.append(LOWEST[1:], _LIMIT)
    assert (values < above[buckets]).all()


def test_small_values_have_a_bucket_each() -> None:
    assert bucket_of(np.arange(128)).tolist() == list(range(128))
    assert MIDDLE[:128].tolist() == list(range(128))


@given(st.lists(_values.filter(lambda value: value >= 64), min_size=1))
@settings(derandomize=True, deadline=None)
def test_the_middle_of_a_bucket_is_at_most_0_8_percent_off(values: list[int]) -> None:
    exact = np.array(values, dtype=np.float64)
    assert (np.abs(MIDDLE[bucket_of(_array(values))] - exact) <= 0.008 * exact).all()


def test_a_value_above_the_last_bucket_is_counted_in_it() -> None:
    assert bucket_of(_array([_LIMIT, 1 << 40])).tolist() == [BUCKETS - 1, BUCKETS - 1]


def _distributions() -> list[Any]:
    random = np.random.default_rng(1)
    near, far = random.normal(2e4, 1e3, 9_000), random.normal(5e7, 1e6, 1_000)
    shapes = {
        "lognormal": random.lognormal(11, 1.5, 20_000),
        "uniform": random.uniform(1_000, 1e9, 20_000),
        "bimodal": np.concatenate([near, far]),
        "exponential": random.exponential(2e5, 20_000),
        "constant": np.full(1_000, 123_457.0),
        "seconds": random.uniform(1e9, 6e10, 5_000),
        "one value": random.uniform(1_000, 1e9, 1),
        "two values": np.array([1_000.0, 5e9]),
        "three values": random.lognormal(11, 1.5, 3),
        "ten values": random.lognormal(11, 3, 10),
    }
    return [
        pytest.param(np.clip(values, 1_000, _LIMIT - 1).astype(np.uint64), id=name) for name, values in shapes.items()
    ]


_each_distribution = pytest.mark.parametrize("values", _distributions())


@_each_distribution
def test_every_percentile_is_within_1_percent_of_the_exact_one(values: Array) -> None:
    exact = np.percentile(values, PERCENTILES).tolist()
    counts = _of(values).counts
    for histogram in (_of(values), Histogram(counts), Histogram(counts, Moments())):
        assert [histogram.percentile(percent) for percent in PERCENTILES] == pytest.approx(exact, rel=0.01)


@_each_distribution
def test_figures_from_buckets_alone_are_within_1_percent(values: Array) -> None:
    distribution = Histogram(_of(values).counts).distribution("request", "help")
    exact = values / 1000
    assert distribution.events == len(values)
    assert distribution.min == pytest.approx(exact.min(), rel=0.01)
    assert distribution.mean == pytest.approx(exact.mean(), rel=0.01)
    assert distribution.max == pytest.approx(exact.max(), rel=0.01)
    assert distribution.std == pytest.approx(exact.std(), rel=0.01, abs=1e-6 * exact.mean())


@given(st.lists(st.integers(1_000, _LIMIT - 1), min_size=1, max_size=60))
@settings(derandomize=True, deadline=None)
def test_percentiles_are_within_1_percent_whatever_the_values(values: list[int]) -> None:
    histogram = _of(_array(values))
    exact = np.percentile(np.array(values), PERCENTILES)
    assert [histogram.percentile(percent) for percent in PERCENTILES] == pytest.approx(exact.tolist(), rel=0.01)


@given(st.lists(_values, min_size=1, max_size=60))
@settings(derandomize=True, deadline=None)
def test_percentiles_rise_and_stay_between_the_smallest_and_the_largest_value(values: list[int]) -> None:
    histogram = _of(_array(values))
    found = [histogram.percentile(percent) for percent in (0, *PERCENTILES, 100)]
    assert found == sorted(found)
    assert min(values) <= found[0]
    assert found[-1] <= max(values)


@given(st.lists(_values, max_size=50), st.lists(_values, max_size=50))
@settings(derandomize=True, deadline=None)
def test_two_parts_add_up_to_the_whole(one: list[int], other: list[int]) -> None:
    parts, whole = _of(_array(one)), _of(_array(one + other))
    parts.add(_array(other))
    assert parts.counts.tolist() == whole.counts.tolist()
    assert (parts.events, parts.moments) == (whole.events, whole.moments)


@given(st.lists(_values, max_size=50), st.lists(_values, max_size=50))
@settings(derandomize=True, deadline=None)
def test_the_kernels_counts_of_two_cpus_add_up_to_the_whole(one: list[int], other: list[int]) -> None:
    parts = Histogram(_kernel_counts(one) + _kernel_counts(other))
    assert parts.counts.tolist() == _of(_array(one + other)).counts.tolist()
    assert parts.events == len(one) + len(other)


@given(st.lists(_values))
@settings(derandomize=True, deadline=None)
def test_number_sum_squares_and_extremes_are_exact(values: list[int]) -> None:
    assert Moments.of(_array(values)) == _exactly(values)


@given(st.lists(st.lists(_values, max_size=5), max_size=5))
@settings(derandomize=True, deadline=None)
def test_moments_of_parts_add_up_in_any_order(parts: list[list[int]]) -> None:
    whole = _exactly([value for part in parts for value in part])
    assert sum((_exactly(part) for part in parts), Moments()) == whole
    assert sum((_exactly(part) for part in reversed(parts)), Moments()) == whole


def test_moments_of_nothing_are_zero() -> None:
    assert Moments.of(_array([])) == Moments()
    assert (Moments().mean, Moments().deviation) == (0, 0)


def test_large_values_in_large_numbers_do_not_overflow() -> None:
    moments = Moments.of(np.full(300_000, _LIMIT - 1, dtype=np.uint64))
    assert moments.squares == 300_000 * (_LIMIT - 1) ** 2
    assert moments.deviation == 0


@given(st.lists(_values, min_size=1))
@settings(derandomize=True, deadline=None)
def test_mean_and_standard_deviation_are_those_of_the_values_in_microseconds(values: list[int]) -> None:
    distribution = _of(_array(values)).distribution("request", "help")
    mean = Fraction(sum(values), len(values))
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert distribution.mean == pytest.approx(float(mean) / 1000, rel=1e-12)
    assert distribution.std == pytest.approx(math.sqrt(variance) / 1000, rel=1e-12)


def test_the_standard_deviation_of_close_values_far_from_zero_keeps_its_digits() -> None:
    values = 60_000_000_000 + np.arange(1_000, dtype=np.uint64) % 2
    distribution = _of(values).distribution("request", "help")
    assert distribution.std == pytest.approx(0.0005, rel=1e-12)


def test_a_distribution_is_in_microseconds_and_names_its_percentiles() -> None:
    distribution = _of(_array([1_000, 2_000, 3_000])).distribution("request", "what it is")
    assert (distribution.name, distribution.unit, distribution.help) == ("request", "us", "what it is")
    assert (distribution.events, distribution.min, distribution.max, distribution.mean) == (3, 1.0, 3.0, 2.0)
    assert list(distribution.percentiles) == ["p50", "p75", "p90", "p95", "p99", "p99.9"]
    assert distribution.percentiles["p50"] == pytest.approx(2.0, rel=0.01)
    assert distribution.counts.sum() == 3


def test_a_distribution_does_not_change_with_its_histogram() -> None:
    histogram = _of(_array([1_000]))
    before = histogram.distribution("request", "")
    histogram.add(_array([1_000]))
    assert before.counts.sum() == 1


@pytest.mark.parametrize(
    ("milliseconds", "label"),
    [(0, "0-1ms"), (0.98, "0-1ms"), (1.02, "1-5ms"), (4.9, "1-5ms"), (5.1, "5-10ms"), (9.8, "5-10ms"),
     (10.2, "10-50ms"), (49, "10-50ms"), (51, "50-100ms"), (98, "50-100ms"), (102, "100+ms"), (60_000, "100+ms")],
)  # fmt: skip
def test_a_value_is_in_its_coarse_bucket(milliseconds: float, label: str) -> None:
    buckets = _of(_array([round(milliseconds * 1e6)])).coarse()
    assert [bucket.label for bucket in buckets if bucket.count] == [label]


def test_the_coarse_buckets_follow_one_another_and_hold_every_value() -> None:
    values = np.random.default_rng(2).lognormal(15, 3, 5_000).clip(0, _LIMIT - 1).astype(np.uint64)
    buckets = _of(values).coarse()
    assert [bucket.label for bucket in buckets] == ["0-1ms", "1-5ms", "5-10ms", "10-50ms", "50-100ms", "100+ms"]
    assert [bucket.low for bucket in buckets] == [0, 1_000, 5_000, 10_000, 50_000, 100_000]
    assert [bucket.high for bucket in buckets] == [1_000, 5_000, 10_000, 50_000, 100_000, math.inf]
    assert sum(bucket.count for bucket in buckets) == 5_000


def test_an_empty_histogram_has_no_figures() -> None:
    for histogram in (Histogram(), Histogram(np.zeros(BUCKETS, np.uint64)), Histogram(moments=Moments())):
        distribution = histogram.distribution("request", "help")
        assert distribution.events == 0
        assert (distribution.min, distribution.max, distribution.mean, distribution.std) == (None, None, None, None)
        assert distribution.percentiles == {}
        assert [bucket.count for bucket in distribution.buckets] == [0] * 6
    with pytest.raises(ValueError, match="empty"):
        Histogram().percentile(50)


def test_nothing_added_changes_nothing() -> None:
    histogram = _of(_array([5]))
    histogram.add(_array([]))
    assert (histogram.events, histogram.moments) == (1, Moments(1, 5, 25, 5, 5))


def test_a_histogram_does_not_change_the_counts_it_was_made_of() -> None:
    counts = np.zeros(BUCKETS, np.int64)
    Histogram(counts).add(_array([5]))
    assert not counts.any()
