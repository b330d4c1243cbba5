"""Buffers that stand for several packets, in every layer of the funnel and as drops; and a device that goes."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.drop_cases import PORT, RIGHT, send, steady
from tests.kernel.measured import measured
from tests.kernel.netfilter_cases import send_segments
from tests.kernel.netlab import _TUN as TUN
from tests.kernel.netns import Namespace, lab

from .test_drops import listening

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI_VNET_HDR = 0x5001
_NEEDS_CHECKSUM, _GSO_TCP4, _GSO_UDP = 1, 1, 5
_HERE, _THERE = "10.78.0.1", "10.78.0.2"
BUFFERS = 30
PATH = ("received", "tc ingress", "prerouting", "prerouting passed", "input", "input passed")


def _options(device: str) -> tuple[str, ...]:
    layers = 'probe.drops.layers=["device", "tc", "netfilter", "socket"]'
    return ("--set", layers, "--set", f'probe.drops.devices=["{device}"]')


def _rows(result: dict[str, Any]) -> dict[str, Any]:
    return {row["layer"]: row for row in result["funnel"].values()}


@pytest.mark.parametrize(
    ("segment", "size"), [(1000, 1000), (100, 1000), (100, 901), (1, 60), (700, 1400), (1200, 12000), (1400, 64000)]
)
def test_each_layer_counts_the_packets_that_buffers_of_any_size_stand_for(
    segment: int, size: int, tmp_path: Path
) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with listening(right), measured(tmp_path, *_options("v1r"), space=right) as result:
            left.call(send_segments, BUFFERS, (RIGHT, PORT), segment, size)
    rows = _rows(result)
    packets = BUFFERS * -(-size // segment)
    assert {name: rows[name]["packets"] for name in (*PATH, "socket")} == dict.fromkeys((*PATH, "socket"), packets)
    assert {name: rows[name]["unseen"] for name in PATH} == dict.fromkeys(PATH, 0)
    assert rows["prerouting"]["buffers"] == BUFFERS
    assert rows["socket"]["buffers"] == packets  # cut for a program that does not take them whole


def test_drops_of_whole_buffers_are_counted_as_buffers_and_as_packets(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        right.nft(f"table ip t {{\n chain c {{\n type filter hook input priority 0;\n udp dport {PORT} drop\n }}\n}}\n")
        with measured(tmp_path) as result:
            left.call(send_segments, BUFFERS, (RIGHT, PORT), 10, 95)
    rows = [row for row in result["flows"].values() if row["netns"] == right.name]
    assert [(row["drops"], row["packets"]) for row in rows] == [(BUFFERS, 10 * BUFFERS)]


@contextmanager
def _tun(space: Namespace) -> Iterator[int]:
    """A device of user space's that hands buffers in which the kernel shall cut."""
    with space.entered():
        end = os.open(TUN, os.O_RDWR)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", b"guest", _IFF_TUN_NO_PI_VNET_HDR))
    try:
        space.run("ip", "addr", "add", f"{_HERE}/24", "dev", "guest")
        space.run("ip", "link", "set", "guest", "up")
        yield end
    finally:
        os.close(end)


def _handed_in(kind: int, segment: int, payload: int) -> bytes:
    """A buffer of UDP or TCP (with a header of 32 bytes) that nobody has counted the segments of."""
    if kind == _GSO_UDP:
        header, protocol, checksum = struct.pack("!HHHH", 1111, PORT, 8 + payload, 0), socket.IPPROTO_UDP, 6
    else:
        header = struct.pack("!HHIIBBHHH12x", 1111, PORT, 1, 0, 8 << 4, 0x10, 65535, 0, 0)
        protocol, checksum = socket.IPPROTO_TCP, 16
    ends = socket.inet_aton(_THERE) + socket.inet_aton(_HERE)
    length = len(header) + payload
    pseudo = sum(struct.unpack("!4H", ends)) + protocol + length
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    header = header[:checksum] + struct.pack("!H", pseudo) + header[checksum + 2 :]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0x4000, 64, protocol, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", total) + head[12:]
    front = struct.pack("=BBHHHH", _NEEDS_CHECKSUM, kind, 20 + len(header), segment, 20, checksum)
    return front + head + header + b"x" * payload


@pytest.mark.parametrize(("segment", "payload"), [(100, 1000), (100, 901), (1400, 30000)])
@pytest.mark.parametrize("kind", [_GSO_UDP, _GSO_TCP4], ids=["udp", "tcp"])
def test_where_nobody_has_counted_segments_length_and_size_say_how_many_there_are(
    kind: int, segment: int, payload: int, tmp_path: Path
) -> None:
    with lab() as bench:
        space = bench.namespace("host")
        space.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        with _tun(space) as guest, measured(tmp_path, *_options("guest"), space=space) as result:
            for _ in range(BUFFERS):
                os.write(guest, _handed_in(kind, segment, payload))
    rows = _rows(result)
    packets = BUFFERS * -(-payload // segment)
    assert {name: rows[name]["packets"] for name in PATH} == dict.fromkeys(PATH, packets)
    assert {name: rows[name]["buffers"] for name in PATH} == dict.fromkeys(PATH, BUFFERS)
    dropped = [row for row in result["flows"].values() if row["netns"] == space.name and row["reason"] == "NO_SOCKET"]
    assert sum(row["packets"] for row in dropped) == packets


def test_a_device_that_goes_keeps_what_it_counted_and_is_said_to_be_gone(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with measured(tmp_path, *_options("v1r"), space=right) as result:
            left.call(send, BUFFERS, (RIGHT, PORT))
            assert steady(lambda: right.snmp()["UdpNoPorts"], BUFFERS) == BUFFERS
            right.run("ip", "link", "del", "v1r")
    rows = _rows(result)
    assert {row["device"] for row in rows.values()} == {"v1r"}
    assert {name: rows[name]["packets"] for name in PATH} == dict.fromkeys(PATH, BUFFERS)
    assert all(row["next"].endswith("the device is gone") for row in rows.values())
