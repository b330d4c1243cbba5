"""The pieces that decoders share."""

from __future__ import annotations

import gc
import ipaddress
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit import Batch
from probekit.decode import address_text, endpoint_text, fields, identity_numbers, identity_text, summed, text
from probekit.model import Array

_INNER = np.dtype([("port", "u2"), ("address", "u1", 16)])
_OUTER = np.dtype([("time", "u8"), ("peer", _INNER), ("name", "S4")])


def test_a_batch_of_plain_numbers_is_one_column() -> None:
    numbers = np.array([[1, 2, 3], [10, 20, 30]], "u8")
    assert summed(Batch("counts", numbers)).values["value"].tolist() == [11, 22, 33]
    assert fields(Batch("counts", numbers[0])).values["value"].tolist() == [1, 2, 3]


def test_a_struct_within_a_struct_is_summed_field_by_field() -> None:
    inner = np.dtype([("low", "u4"), ("high", "u4")])
    batch = np.zeros((2, 1), np.dtype([("all", "u8"), ("parts", inner)]))
    batch["parts"]["low"] = 3
    assert {name: values.tolist() for name, values in summed(Batch("counts", batch)).values.items()} == {
        "all": [0], "low": [6], "high": [0],
    }  # fmt: skip


def test_what_fills_gaps_is_no_column_and_what_is_no_number_has_no_sum() -> None:
    batch = np.zeros(
        (2, 3), np.dtype([("count", "u4"), ("name", "S4"), ("__pad_2", "S3"), ("deep", [("__pad_1", "S7")])])
    )
    batch["count"] = 5
    assert list(fields(Batch("counts", batch[0])).values) == ["count", "name"]
    assert {name: values.tolist() for name, values in summed(Batch("counts", batch)).values.items()} == {
        "count": [10] * 3
    }


def _addresses(*texts: str) -> Array:
    prefix = {4: b"\0" * 10 + b"\xff\xff", 6: b""}
    packed = [prefix[address.version] + address.packed for address in map(ipaddress.ip_address, texts)]
    return np.frombuffer(b"".join(packed), "u1").reshape(-1, 16)


def test_every_field_is_a_column_and_a_struct_within_is_taken_apart() -> None:
    data = np.zeros(2, _OUTER)
    data["time"], data["peer"]["port"], data["name"] = [5, 6], [80, 443], [b"ab", b"abcd"]
    columns = fields(Batch("events", data))
    assert columns.source == "events"
    assert list(columns.values) == ["time", "port", "address", "name"]
    assert columns.values["time"].tolist() == [5, 6]
    assert columns.values["port"].tolist() == [80, 443]
    assert columns.values["address"].shape == (2, 16)
    assert columns.values["name"].tolist() == [b"ab", b"abcd"]


def test_a_batch_is_freed_as_soon_as_nobody_has_its_columns() -> None:
    gc.collect()
    gc.disable()
    try:
        columns = fields(Batch("events", np.zeros(10, _OUTER)))
        alive = weakref.ref(columns.values["time"])
        assert alive() is not None
        del columns
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("::1", "::1"),
        ("fe80::1", "fe80::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::10.0.0.1", "::a00:1"),
    ],
)
def test_an_address_is_written_as_usual_and_a_v4_mapped_one_as_ipv4(address: str, shown: str) -> None:
    assert address_text(_addresses(address)).tolist() == [shown]


@given(st.lists(st.ip_addresses(v=6) | st.ip_addresses(v=4), max_size=20))
@settings(derandomize=True, deadline=None)
def test_addresses_keep_their_order_and_their_repetitions(
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    expected = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
    assert address_text(_addresses(*map(str, addresses))).tolist() == [str(address) for address in expected]


def test_an_endpoint_has_its_port_and_ipv6_its_brackets() -> None:
    endpoints = endpoint_text(_addresses("10.0.0.1", "fd00::1"), np.array([0, 65535], np.uint16))
    assert endpoints.tolist() == ["10.0.0.1:0", "[fd00::1]:65535"]
    assert endpoint_text(np.zeros((0, 16), "u1"), np.zeros(0, np.uint16)).tolist() == []


def test_a_name_that_is_not_utf8_is_shown_with_replacement_characters() -> None:
    assert text(np.array([b"curl", b"n\xffx", b"", "Z\u00fc".encode()])).tolist() == ["curl", "n\ufffdx", "", "Z\u00fc"]
    assert text(np.zeros(0, "S16")).tolist() == []


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_an_identity_is_read_back(numbers: list[int]) -> None:
    identities = np.array(numbers, np.uint64)
    assert identity_numbers(identity_text(identities)).tolist() == numbers


@pytest.mark.parametrize(
    "strange", ["", "x", "0000000a-0000000", "0000000a-0000000bc", "0000000a 0000000b", "0000000A-0000000b", "-" * 17]
)
def test_what_is_no_identity_is_none(strange: str) -> None:
    assert identity_numbers(np.array([strange, "0000000a-0000000b"])).tolist() == [0, 10 << 32 | 11]
