"""Traps of sending: what begins an exchange, by whatever system call."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import LiveProbe, Pair
from .uring import ASYNC, RECV, SEND, Ring

PAUSE = 0.02


def test_pipelined_sends(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.send(b"1")
    time.sleep(PAUSE)
    ends.client.send(b"2")  # must not move the start
    assert ends.server.recv(1) == b"1"
    assert ends.server.recv(1) == b"2"
    ends.server.send(b"!")
    ends.client.recv(9)
    ends.server.send(b"!")
    ends.client.recv(9)
    assert ends.events() == (1, 1)
    assert ends.row("client")["min_latency_us"] > PAUSE * 1e6


def test_a_request_that_comes_while_another_is_read(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.send(b"12")
    ends.server.recv(1)
    ends.client.send(b"3")
    time.sleep(PAUSE)
    ends.server.recv(1)  # the rest of the first one
    ends.server.send(b"!")
    ends.server.recv(1)
    ends.server.send(b"!")
    assert ends.events() == (0, 2)


def test_a_request_that_comes_while_another_is_answered(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.client.send(b"1")
    ends.server.recv(1)
    ends.client.send(b"2")
    time.sleep(PAUSE)
    ends.server.send(b"!")
    ends.server.recv(1)
    time.sleep(PAUSE)
    ends.server.send(b"!")
    assert ends.events() == (0, 2)
    assert ends.row("server")["min_latency_us"] > PAUSE * 1e6


def test_a_server_that_speaks_unasked(pair: Callable[..., Pair]) -> None:
    ends = pair()
    for _ in range(3):
        ends.server.send(b"hello")
        ends.client.recv(9)
    assert ends.events() == (0, 0)
    ends.exchange()
    assert ends.events() == (1, 1)


def test_zero_length_sends(pair: Callable[..., Pair]) -> None:
    ends = pair()
    assert ends.client.send(b"") == 0
    ends.server.send(b"hello")
    ends.client.recv(9)
    assert ends.events() == (0, 0)  # nobody asked
    ends.request()
    assert ends.server.send(b"") == 0
    time.sleep(PAUSE)
    ends.respond()
    assert ends.events() == (1, 1)
    assert ends.row("server")["min_latency_us"] > PAUSE * 1e6  # nor was that the answer


def test_sends_before_the_connection_is_there(probe: LiveProbe) -> None:
    before = probe.result()
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        port = alone.getsockname()[1]
        with pytest.raises(OSError, match=os.strerror(errno.EPIPE)):
            alone.send(b"?", socket.MSG_NOSIGNAL)
        assert len(probe.slots(port)) == 0  # a record would stay: this socket has no end that anybody sees
    assert probe.result()["unanswered"] == before["unanswered"]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file with 3,000 bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3000)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_sendfile(pair: Callable[..., Pair], file: int) -> None:
    ends = pair()
    for _ in range(3):
        assert os.sendfile(ends.client.fileno(), file, 0, 3000) == 3000
        assert len(ends.server.recv(3000, socket.MSG_WAITALL)) == 3000
        time.sleep(PAUSE)
        assert os.sendfile(ends.server.fileno(), file, 0, 3000) == 3000
        assert len(ends.client.recv(3000, socket.MSG_WAITALL)) == 3000
    assert ends.events() == (3, 3)
    assert ends.row("client")["min_latency_us"] > PAUSE * 1e6
    assert ends.row("server")["min_latency_us"] > PAUSE * 1e6


def test_splice_to_a_socket(pair: Callable[..., Pair]) -> None:
    ends = pair()
    reading, writing = os.pipe()
    try:
        for _ in range(3):
            os.write(writing, b"?" * 3000)
            assert os.splice(reading, ends.client.fileno(), 3000) == 3000
            assert len(ends.server.recv(3000, socket.MSG_WAITALL)) == 3000
            os.write(writing, b"!" * 3000)
            assert os.splice(reading, ends.server.fileno(), 3000) == 3000
            assert len(ends.client.recv(3000, socket.MSG_WAITALL)) == 3000
        assert ends.events() == (3, 3)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.fixture
def ring() -> Iterator[Ring]:
    """An io_uring."""
    try:
        made = Ring().__enter__()
    except OSError as error:
        # ENOSYS: built without; EPERM: the sysctl kernel.io_uring_disabled
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        pytest.skip(f"not on this kernel: io_uring_setup: {error.strerror}")
    yield made
    made.__exit__(None, None, None)


@pytest.mark.parametrize("flags", [0, ASYNC], ids=["inline", "worker"])
def test_io_uring(pair: Callable[..., Pair], ring: Ring, flags: int) -> None:
    ends = pair()
    buffer = ctypes.create_string_buffer(b"?", 9)
    for end in (ends.client, ends.server):
        end.setblocking(True)
    for _ in range(3):
        assert ring.do(SEND, ends.client.fileno(), buffer, 1, flags) == 1
        assert ring.do(RECV, ends.server.fileno(), buffer, 9, flags) == 1
        assert ring.do(SEND, ends.server.fileno(), buffer, 1, flags) == 1
        assert ring.do(RECV, ends.client.fileno(), buffer, 9, flags) == 1
    assert ends.events() == (3, 3)
    if not flags:
        assert ends.row("client")["pid"] == ends.row("server")["pid"] == os.getpid()
