"""Helpers for decoders: addresses, identities. Stage 7.

A decoder is a function that a probe returns from `probekit_decode`; these are the pieces that probes share.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping

import numpy as np

from ..machine.map_types import PADDING
from ..model import Array, Batch, Columns
from .symbols import HIDDEN, Symbols, function_text


def fields(batch: Batch) -> Columns:
    """Every field of a batch as a column of its own; a struct within a struct is taken apart.

    What is no struct is one column, `value`.
    """
    return Columns(batch.source, _taken_apart(batch.data))


def _taken_apart(data: Array) -> dict[str, Array]:
    if data.dtype.names is None:
        return {"value": data}
    columns: dict[str, Array] = {}
    for name in data.dtype.names:
        if not name.startswith(PADDING):
            columns |= _taken_apart(data[name]) if data[name].dtype.names else {name: data[name]}
    return columns


def summed(batch: Batch) -> Columns:
    """Every number of a per-CPU batch, as `fields` has them, summed over the CPUs: a row for each entry.

    Of a per-CPU hash the key's fields are as they are.
    """
    if batch.data.dtype.names != ("key", "value"):
        return Columns(batch.source, _sums(batch.data, 0))
    keys = batch.data["key"]
    named = _taken_apart(keys) if keys.dtype.names else {"key": keys}
    return Columns(batch.source, {**named, **_sums(batch.data["value"], 1)})


def _sums(data: Array, axis: int) -> dict[str, Array]:
    return {name: values.sum(axis=axis) for name, values in _taken_apart(data).items() if values.dtype.kind in "biuf"}


def address_text(addresses: Array) -> Array:
    """Addresses as text; IPv4-mapped IPv6 addresses as IPv4.

    Args:
        addresses: Shape (n, 16), uint8, network order.

    Returns:
        Shape (n,), strings.
    """
    if not len(addresses):
        return np.empty(0, "U1")
    whole = np.ascontiguousarray(addresses).view("V16").ravel()
    distinct, inverse = np.unique(whole, return_inverse=True)
    text = []
    for raw in distinct:
        address = ipaddress.IPv6Address(raw.tobytes())
        text.append(str(address.ipv4_mapped or address))
    return np.array(text)[inverse.ravel()]


def endpoint_text(addresses: Array, ports: Array) -> Array:
    """`10.0.0.1:80` or `[fe80::1]:80` for each row.

    Args:
        addresses: Shape (n, 16), uint8.
        ports: Shape (n,), host order.
    """
    hosts = [f"[{host}]" if ":" in host else host for host in address_text(addresses).tolist()]
    return np.array([f"{host}:{port}" for host, port in zip(hosts, ports.tolist(), strict=True)], dtype=np.str_)


def identity_text(identities: Array) -> Array:
    """`3f2a9c01-77b1e0aa` for each connection: its first sequence numbers, the smaller first; empty where unknown.

    Args:
        identities: Shape (n,), as `connection_id` in bpf/include/socket.h makes them.
    """
    return np.array([f"{i >> 32:08x}-{i & 0xFFFFFFFF:08x}" if i else "" for i in identities.tolist()], dtype=np.str_)


def identity_numbers(texts: Array) -> Array:
    """What `identity_text` made texts of; 0 for what is no such text.

    Args:
        texts: Shape (n,), strings.

    Returns:
        Shape (n,), uint64.
    """
    length = 17
    codes = texts.astype(f"U{length + 1}").view(np.uint32).reshape(len(texts), length + 1).astype(np.int64)
    digits = np.select([(codes >= 48) & (codes < 58), (codes >= 97) & (codes < 103)], [codes - 48, codes - 87], -1)
    hexadecimal = np.delete(digits[:, :length], 8, axis=1)
    proper = (codes[:, 8] == ord("-")) & (codes[:, length] == 0) & (hexadecimal >= 0).all(axis=1)
    places = np.arange(60, -1, -4, dtype=np.uint64)
    numbers: Array = np.where(proper, (hexadecimal.astype(np.uint64) << places).sum(axis=1, dtype=np.uint64), 0)
    return numbers


def words(kind: type[enum.IntEnum], values: Array) -> Array:
    """Names of an enum's members in small letters; empty for a number that is none.

    Args:
        kind: The enum.
        values: Shape (n,), at most the highest number of the enum.
    """
    names = {int(member): member.name.lower() for member in kind}
    texts: Array = np.array([names.get(number, "") for number in range(max(names) + 1)], dtype=np.str_)[values]
    return texts


def named(values: Array, names: Mapping[int, str], missing: str = "") -> Array:
    """A text for each number.

    Args:
        values: Shape (n,), whole numbers.
        names: What numbers are called.
        missing: Of one that has no name, which is put in place of `{}`.
    """
    distinct, places = np.unique(values, return_inverse=True)
    texts = [names.get(number, missing.format(number)) for number in distinct.tolist()]
    chosen: Array = np.array(texts or [""], dtype=np.str_)[places]
    return chosen


def text(values: Array) -> Array:
    """C strings as text; what is not UTF-8 is shown as replacement characters.

    Args:
        values: Shape (n,), fixed-size bytes.
    """
    return np.array([value.decode(errors="replace") for value in values.tolist()], dtype=np.str_)


__all__ = [
    "HIDDEN", "Symbols", "address_text", "endpoint_text", "fields", "function_text", "identity_numbers",
    "identity_text", "named", "summed", "text", "words",
]  # fmt: skip
