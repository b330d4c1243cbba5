"""Traps of reading: what is handed over to a program, and what only looks like it."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from .conftest import LiveProbe, Pair

PAUSE = 0.02
SEGMENT = 16_000
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER so that close sends a reset."""


def test_msg_peek(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.send(b"?")
    for _ in range(3):
        ends.server.recv(9, socket.MSG_PEEK)
    ends.server.recv(9)
    ends.server.send(b"!")
    for _ in range(3):
        ends.client.recv(9, socket.MSG_PEEK)
    ends.client.recv(9)
    assert ends.events() == (1, 1)
    assert ends.row("client")["avg_transfer_us"] == 0


def test_a_peek_is_not_yet_handing_over(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    ends.server.send(b"!")
    ends.client.recv(9, socket.MSG_PEEK)
    assert ends.events() == (0, 1)
    time.sleep(PAUSE)
    ends.client.recv(9)
    assert ends.row("client")["min_latency_us"] > PAUSE * 1e6


def test_a_streamed_response_in_many_reads(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    for _ in range(20):
        ends.server.send(b"x" * 1000)
        ends.client.recv(600)
        ends.client.recv(600)
    assert ends.events() == (1, 1)
    assert ends.row("client")["bytes_received"] <= 20_000


def test_a_running_total_in_one_read(pair: Callable[..., Pair]) -> None:
    """tcp_cleanup_rbuf is called several times for one receive, each time with what has been copied so far."""
    ends = pair()
    ends.request()
    ends.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends.server.sendall(b"x" * 10 * SEGMENT)
    ends.client.setblocking(True)
    assert len(ends.client.recv(10 * SEGMENT, socket.MSG_WAITALL)) == 10 * SEGMENT
    assert ends.events() == (1, 1)
    ends.close()
    client, server = ends.row("client"), ends.row("server")
    assert client["bytes_received"] == server["bytes_sent"] == 10 * SEGMENT
    assert client["bytes_sent"] == server["bytes_received"] == 1


def test_eagain_polling(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.setblocking(False)
    ends.server.setblocking(False)
    for end in (ends.server, ends.client):
        with pytest.raises(BlockingIOError):
            end.recv(9)
    ends.client.send(b"?")
    for _ in range(10):
        with pytest.raises(BlockingIOError):
            ends.client.recv(9)
    assert ends.server.recv(9) == b"?"
    with pytest.raises(BlockingIOError):
        ends.server.recv(9)
    time.sleep(PAUSE)
    ends.respond()
    with pytest.raises(BlockingIOError):
        ends.client.recv(9)
    assert ends.events() == (1, 1)
    assert ends.row("client")["min_latency_us"] > PAUSE * 1e6
    assert ends.row("server")["min_latency_us"] > PAUSE * 1e6


def test_zero_length_reads(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.send(b"?")
    assert ends.server.recvmsg(0)[0] == b""  # the request is there, and stays there
    time.sleep(PAUSE)
    assert ends.server.recv(9) == b"?"
    ends.server.send(b"!")
    for _ in range(3):
        assert ends.client.recvmsg(0)[0] == b""
    time.sleep(PAUSE)
    assert ends.client.recv(9) == b"!"
    assert ends.events() == (1, 1)
    assert ends.row("server")["max_latency_us"] < ends.row("client")["min_latency_us"] - 2 * PAUSE * 1e6
    assert ends.row("client")["min_latency_us"] > 2 * PAUSE * 1e6


def test_the_rest_of_an_earlier_response(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    ends.server.send(b"abcdef")
    assert ends.client.recv(3) == b"abc"
    ends.client.send(b"?")
    assert ends.client.recv(3) == b"def"
    assert ends.server.recv(9) == b"?"
    time.sleep(PAUSE)
    ends.respond()
    assert ends.events() == (2, 2)
    assert ends.row("client")["max_latency_us"] > PAUSE * 1e6


def test_the_rest_of_an_earlier_response_read_before_the_next_one(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.request()
    ends.server.send(b"abcdef")
    assert ends.client.recv(3) == b"abc"
    ends.request()
    ends.server.send(b"!")
    assert ends.client.recv(3) == b"def"
    time.sleep(PAUSE)
    assert ends.client.recv(9) == b"!"
    assert ends.events() == (2, 2)
    assert ends.row("client")["max_latency_us"] > PAUSE * 1e6


def test_data_read_after_the_end(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    ends = pair()
    ends.exchange()
    ends.server.send(b"left")
    ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ends.server.close()
    assert ends.client.recv(9) == b"left"
    assert len(probe.slots(ends.server_port)) == 0  # a record would stay: the end has been seen
    assert ends.events() == (1, 1)


def test_kretprobe_slots(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """More programs wait in recv at once than a kretprobe has slots for (10, or two a CPU)."""
    pairs = [pair() for _ in range(10 + 2 * (os.cpu_count() or 1) + 4)]
    waiting = [threading.Thread(target=ends.client.recv, args=(9,)) for ends in pairs]
    for ends, thread in zip(pairs, waiting, strict=True):
        ends.client.send(b"?")
        thread.start()
    for ends in pairs:
        assert ends.server.recv(9) == b"?"
    time.sleep(10 * PAUSE)  # all of them are in the system call by now
    for ends in pairs:
        ends.server.send(b"!")
    for thread in waiting:
        thread.join(20)
    result = probe.result()
    assert [ends.events(result) for ends in pairs] == [(1, 1)] * len(pairs)


def test_splice_from_a_socket(pair: Callable[..., Pair]) -> None:
    ends = pair()
    reading, writing = os.pipe()
    try:
        for _ in range(3):
            ends.client.send(b"?" * 3000)
            assert os.splice(ends.server.fileno(), writing, 3000) == 3000
            assert len(os.read(reading, 3000)) == 3000
            ends.server.send(b"!" * 3000)
            assert os.splice(ends.client.fileno(), writing, 3000) == 3000
            assert len(os.read(reading, 3000)) == 3000
        assert ends.events() == (3, 3)
    finally:
        os.close(reading)
        os.close(writing)


def test_half_close(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    unanswered = probe.result()["unanswered"]
    ends = pair()
    ends.client.send(b"???")
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.server.recv(9) == b"???"
    assert ends.server.recv(9) == b""  # the end is no request
    ends.server.send(b"!")
    assert ends.client.recv(9) == b"!"
    ends.server.send(b"more")
    ends.server.shutdown(socket.SHUT_WR)
    assert ends.client.recv(9) == b"more"
    assert ends.client.recv(9) == b""  # and no response
    assert ends.events() == (1, 1)
    ends.close()
    assert ends.events() == (1, 1)
    client, server = ends.row("client"), ends.row("server")
    assert (client["bytes_sent"], client["bytes_received"]) == (3, 5)  # and not a byte more for each FIN
    assert (server["bytes_sent"], server["bytes_received"]) == (5, 3)
    assert client["state"] == server["state"] == "closed"
    assert probe.result()["unanswered"] == unanswered
