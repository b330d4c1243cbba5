"""Batches of the connection tracker's maps to columns."""

from __future__ import annotations

from probekit import Decoder
from probekit.decode import fields, summed

DECODERS: dict[str, Decoder] = {
    "closed": fields,
    "late": fields,
    "connections": fields,
    "counters": summed,
}
"""A decoder for each map of the C source. Columns are named as the fields of its structs."""
