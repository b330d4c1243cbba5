"""Traps of arithmetic: what is shifted, what wraps, what two CPUs count at once, what was too long or not seen."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from .conftest import LiveProbe, Pair
from .peer import Peer

PAUSE = 0.02
RESET = struct.pack("ii", 1, 0)
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # include/uapi/linux/tcp.h
RECV_QUEUE, SEND_QUEUE = 1, 2


def test_srtt_is_shifted(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange(10)
    # tcpi_rtt of struct tcp_info
    (kernels,) = struct.unpack_from("=I", ends.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 68)
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ends.client.close()
    assert kernels > 0
    assert ends.row("client")["srtt_us"] == kernels


def test_clock_wrap(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """An end before its start: no clock of these machines does it, so the start is moved."""
    before = probe.result()["lost"]
    ends = pair()
    ends.exchange()
    ends.request()
    client = probe.client(ends.port)
    assert probe.records["start"][client] <= time.monotonic_ns()
    probe.records["start"][client] += 3600 * 10**9
    ends.respond()
    after = probe.result()["lost"]
    assert after["clock"] > before["clock"]
    assert ends.events() == (1, 2)
    assert 0 < ends.row("client")["max_latency_us"] < 60e6
    ends.exchange()  # and it goes on
    assert ends.events() == (2, 3)


def test_counter_wrap_of_squares(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """Sums of squares are kept in 128 bits: the lower 64 are about to overflow."""
    ends = pair()
    ends.exchange(2)
    ends.request()  # which ends the one before
    client = probe.client(ends.port)
    was = int(probe.records["square_low"][client])
    probe.records["square_low"][client] = 2**64 - 1
    time.sleep(PAUSE)
    ends.respond()
    latency = round(ends.row("client")["max_latency_us"] * 1000)
    assert latency > PAUSE * 1e9
    ends.request()  # which ends the one before
    assert int(probe.records["square_high"][client]) == 1
    assert int(probe.records["square_low"][client]) == latency**2 - 1
    probe.records["square_high"][client], probe.records["square_low"][client] = 0, was + latency**2
    ends.respond()
    assert ends.row("client")["std_dev_us"] > 0


def repaired(send: int, receive: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection whose sequence numbers are given: of the first's bytes, and of the second's."""
    ends = []
    for mine, its in ((send, receive), (receive, send)):
        end = socket.socket()
        end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        end.bind(("127.0.0.1", 0))
        for queue, number in ((SEND_QUEUE, mine), (RECV_QUEUE, its)):
            end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
            end.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("=I", number))
        ends.append(end)
    first, second = ends
    first.connect(second.getsockname())
    second.connect(first.getsockname())
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
        end.settimeout(20)
    return first, second


def test_counter_wrap_of_sequence_numbers(probe: LiveProbe) -> None:
    """The kernel's place in a stream has 32 bits; both directions pass their end in the middle of this."""
    client, other = repaired(2**32 - 100, 2**32 - 150)
    with client, other:
        port, other_port = client.getsockname()[1], other.getsockname()[1]
        for size in (40, 40, 40, 40):
            client.send(b"?" * size)
            assert len(other.recv(100)) == size
            other.send(b"!" * size)
            client.recvmsg(0)
            time.sleep(PAUSE)
            assert len(client.recv(100)) == size
    rows = {row["source"]: row for row in probe.rows(port)}
    row = rows[f"127.0.0.1:{port}"]
    assert (row["events"], row["bytes_sent"], row["bytes_received"]) == (4, 160, 160)
    assert row["min_latency_us"] > PAUSE * 1e6
    # a connection made by repair has been opened by both ends: this one is a client that speaks and is then answered
    assert rows[f"127.0.0.1:{other_port}"]["events"] == 3


def test_a_request_longer_than_half_of_the_sequence_numbers(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """Where it ends is kept as a sequence number; the test puts it a GiB behind, as if so much had been read since."""
    ends = pair()
    ends.client.send(b"1234")
    assert ends.server.recv(1) == b"1"
    (server,) = (n for n in probe.slots(ends.port) if n != probe.client(ends.port))
    end = int(probe.records["place"][server])
    probe.records["place"][server] = (end - 2**30 - 8) % 2**32
    assert ends.server.recv(1) == b"2"
    assert int(probe.records["place"][server]) == end  # it cannot fall behind so far that it seems to be ahead
    ends.server.send(b"!")
    assert ends.events() == (0, 1)


def test_counters_shared_between_cpus(alone: LiveProbe) -> None:
    """Nothing gets lost where several CPUs count at once: totals are the sums of the connections.

    A kernel that preempts programs misses runs, and says how many: what an exchange lacks has to be among them.
    """
    cpus = os.cpu_count() or 1
    times, pairs = 8000 if cpus > 1 else 200, [Pair(alone) for _ in range(2 * cpus)]
    code = f"for _ in range({times}): s[0].send(b'?'); s[1].recv(9); s[1].send(b'!'); s[0].recv(9)"
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer()) for _ in pairs]  # threads of Python would take turns
        threads = [
            threading.Thread(target=peer.run, args=(code, ends.client, ends.server))
            for peer, ends in zip(peers, pairs, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for ends in pairs:
        ends.close()
    alone.detach()
    result = alone.result()
    lacking = sum(2 * times - sum(ends.events(result)) for ends in pairs)
    assert 0 <= lacking <= 2 * result["lost"]["programs_missed"]
    rows = result["connections"].values()
    for measure, side in (("request", "client"), ("service", "server")):
        total = sum(row["events"] for row in rows if row["side"] == side)
        if alone.strangers:  # their exchanges are in the totals, and in no row that is kept
            assert result["distributions"][measure]["events"] > total
            continue
        assert result["distributions"][measure]["events"] == total
        assert sum(result["distributions"][measure]["histogram"].values()) == total
