"""The probe sees what a DNS server on loopback answers."""

import socket
import struct
import threading
import time

import pytest
from probekit.testing import Harnesses, assert_plugin_contract

SERVFAIL = 2


def test_contract() -> None:
    assert_plugin_contract("probe", "dns")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_answers_are_counted_and_timed(probe_harness: Harnesses, family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((host, 0))
        port = server.getsockname()[1]
        threading.Thread(target=_serve, args=(server, 5), daemon=True).start()
        client.connect((host, port))
        client.settimeout(10)
        with probe_harness("dns", port=port).live() as live:
            for number in range(1, 6):
                client.send(struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + b"\1x\0\0\1\0\1")
                client.recv(512)
            client.send(struct.pack(">6H", 9, 0x0100, 1, 0, 0, 0) + b"\1x\0\0\1\0\1")  # nobody answers
            figures = live.finish().figures
    (servers,) = figures.tables
    values = {column.name: column.values.tolist() for column in servers.columns}
    assert (values["server"], values["answers"], values["errors"]) == ([host], [5], [1])
    assert (figures.summary["queries"], figures.summary["unanswered"]) == (6, 1)
    assert values["max_latency_us"][0] >= 20_000


def _serve(server: socket.socket, answers: int) -> None:
    """Answers so many queries, the last one late and with an error."""
    for number in range(1, answers + 1):
        query, peer = server.recvfrom(512)
        (identity,) = struct.unpack_from(">H", query)
        if number == answers:
            time.sleep(0.02)
        flags = 0x8180 | (SERVFAIL if number == answers else 0)
        server.sendto(struct.pack(">6H", identity, flags, 1, 0, 0, 0) + query[12:], peer)
