"""Spellings of durations and sizes."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit import option
from probekit.config.options import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("7ns", 7e-9),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1m30s", 90.0),
        ("1h2m3s4ms", 3723.004),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "", "s", "5", "60", "5.s", ".5s", "5 s", " 5s", "5s ", "5s\n", "5S", "5sec", "-5s", "+5s", "1e3s", "1,5s",
        "1m 30s", "1m30", "s5", "5µs", "inf", "nan", "0x10s", "1_000s",
    ],
)  # fmt: skip
def test_a_text_that_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match='has to be a duration with its unit, such as "60s"'):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (60.0, "60s"),
        (1.0, "1s"),
        (90.0, "90s"),
        (0.25, "250ms"),
        (1.5, "1500ms"),
        (1e-5, "10us"),
        (1e-9, "1ns"),
        (0, "0s"),
        (3600, "3600s"),
    ],
)
def test_a_duration_is_written_in_the_largest_unit_that_keeps_it_whole(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.integers(0, 10**18))
@settings(derandomize=True, deadline=None)
def test_a_written_duration_reads_back_as_itself(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert math.isclose(parse_seconds(format_seconds(seconds)), seconds, rel_tol=2e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("12B", 12),
        ("64KiB", 65536),
        ("4MiB", 4 << 20),
        ("1GiB", 1 << 30),
        ("4 MiB", 4 << 20),
    ],
)
def test_a_size_is_its_number_times_its_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "B", "MiB", "4MB", "4M", "4k", "4kib", "4mib", "1.5MiB", "-4MiB", "+4MiB", " 4MiB", "4MiB ", "4MiB4KiB",
     "0x10", "1e6", "4TiB", "1_000"],
)  # fmt: skip
def test_a_text_that_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match='has to be a size such as 65536, "64KiB" or "4MiB"'):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1"), (1023, "1023"), (1024, "1KiB"), (4 << 20, "4MiB"), (3 << 30, "3GiB"), (1536, "1536")],
)
def test_a_size_is_written_in_the_largest_unit_that_keeps_it_whole(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, (1 << 63) - 1) | st.builds(lambda n, bits: n << bits, st.integers(0, 5000), st.integers(0, 40)))
@settings(derandomize=True, deadline=None)
def test_a_written_size_reads_back_as_itself(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


@attrs.frozen
class Checked:
    share: float = option(1.0, help="a share", allowed="above 0", check=lambda v: v > 0)
    limit: float | None = option(None, help="a limit", allowed="above 0", check=lambda v: v > 0)


def test_an_option_refuses_what_its_check_refuses_and_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="has to be above 0"):
        Checked(share=0)
    with pytest.raises(ValueError, match="has to be above 0"):
        Checked(limit=-1)


def test_an_option_left_out_is_not_checked() -> None:
    assert Checked().limit is None
    assert Checked(limit=None).limit is None


@pytest.mark.parametrize("text", ["9" * 5000, "1s" * 5000, "9" * 98 + "s", "9" * 400 + "d"])
def test_a_duration_beyond_any_use_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has to be a duration "):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 5000 + "GiB", "8589934592GiB", " " * 10**6])
def test_a_size_beyond_64_bits_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has to be a size such as 65536"):
        parse_bytes(text)
