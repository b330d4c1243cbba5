"""Both CPUs at the same few sets of the table: connections come, go and make room for each other at the same time."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import Any

from .conftest import bind, live
from .objects import ROOM

ROUNDS = 600
HELD = ROOM // 2  # connections of two ends that stay open for a while on each CPU: twice what there is room for


class Hammer(threading.Thread):
    """Opens connections on one CPU, each with one exchange, and closes each some time later.

    Attributes:
        ports: The clients'.
    """

    def __init__(self, cpu: int) -> None:
        super().__init__(daemon=True)
        self.ports: list[int] = []
        self._cpu = cpu

    def run(self) -> None:
        os.sched_setaffinity(0, {self._cpu})  # of this thread
        held: deque[tuple[socket.socket, socket.socket]] = deque()
        with socket.socket() as listener:
            bind(listener, "127.0.0.1")
            listener.listen(8)
            for _ in range(ROUNDS):
                held.append(self._exchange(listener))
                if len(held) > HELD:
                    _close(held.popleft())
        while held:
            _close(held.popleft())

    def _exchange(self, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        client = socket.socket()
        bind(client, "127.0.0.1")
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        client.send(b"?")
        server.send(server.recv(1))
        assert client.recv(1) == b"?"
        self.ports.append(int(client.getsockname()[1]))
        return client, server


def _close(ends: tuple[socket.socket, socket.socket]) -> None:
    for end in ends:
        end.close()


def test_two_cpus_at_one_set_lose_nothing_that_is_not_counted_and_count_nothing_twice(way: str) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with live(way, max_connections=ROOM) as probe:
        hammers = [Hammer(cpus[number % len(cpus)]) for number in range(2)]
        for hammer in hammers:
            hammer.start()
        for hammer in hammers:
            hammer.join(110)
            assert not hammer.is_alive()
        probe.detach()
        result = probe.result()
    ports = {f":{port}" for hammer in hammers for port in hammer.ports}
    assert len(ports) == 2 * ROUNDS
    ends: dict[tuple[str, str], int] = {}
    for row in result["connections"].values():
        for mine in {_port(row["source"]), _port(row["destination"])} & ports:
            ends[mine, row["side"]] = ends.get((mine, row["side"]), 0) + row["events"]
    assert {end: events for end, events in ends.items() if events > 1} == {}  # no record was handed over twice
    missing = 2 * len(ports) - sum(ends.values())
    causes = ("exchanges_evicted", "connections_ring_full", "table_contended", "clock")
    counted: Any = sum(result["lost"][cause] for cause in causes) + result["begun_before"] + result["unanswered"]
    # a kernel that preempts programs leaves runs out, and says how many: each may be an end's birth or its exchange
    missed = 2 * result["lost"]["programs_missed"]
    assert missing <= counted + missed, (missing, counted, missed)
    assert result["connections_evicted"] > 0  # otherwise nobody was crowded


def _port(endpoint: str) -> str:
    return endpoint[endpoint.rindex(":") :]
