"""Findings of the latency probe on real sockets: each is provoked, and not there where nothing provokes it."""

from __future__ import annotations

import json
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.kernel.netns import lab

from .conftest import Probe

TIMES = 30
LATE = 0.012
LARGE = 4 << 20


@contextmanager
def served(
    answer: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0, pause: float = 0
) -> Iterator[tuple[str, int]]:
    """A server that looks for a request after a pause, and answers; its address."""

    def serve() -> None:
        try:
            accepted, _ = server.accept()
        except OSError:
            return
        with accepted, suppress(ConnectionError):
            while True:
                time.sleep(pause)
                if not accepted.recv(99):
                    return
                answer(accepted)

    with socket.create_server((host, port)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


def at_once(server: socket.socket) -> None:
    server.sendall(b"head" + b"body")


def in_two(server: socket.socket) -> None:
    server.sendall(b"head")
    server.sendall(b"body")


def ask(client: socket.socket, size: int = 8, late: float = 0) -> None:
    client.sendall(b"?")
    time.sleep(late)
    while size > 0:
        size -= len(client.recv(1 << 16))


def of(result: Any, port: int) -> dict[str, dict[str, Any]]:
    """The findings about a port."""
    rows = result["findings"].values()
    return {row["finding"]: row for row in rows if row["service"].endswith(f":{port}")}


def calm(result: Any, port: int, most: float = 0.1) -> bool:
    """Whether nothing stood still: on a machine that does, findings are there that nobody here provoked."""
    rows = [r for r in result["connections"].values() if f":{port}" in r["source"] + r["destination"]]
    return all((r["max_latency_us"] or 0) < most * 1e6 for r in rows)


@pytest.mark.parametrize("nodelay", [False, True])
def test_nagle_meets_delayed_acknowledgement(probe: Callable[..., Probe], nodelay: bool) -> None:
    def answer(server: socket.socket) -> None:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
        in_two(server)

    running = probe("latency")
    with served(answer) as address, socket.create_connection(address) as client:
        for _ in range(2 * TIMES):
            ask(client)
        result = running.result()
    found = of(result, address[1])
    if nodelay and not calm(result, address[1]):
        return
    assert ("Nagle meets delayed acknowledgement" in found) is not nodelay, found
    verdicts = {r["verdict"] for r in result["connections"].values() if r["destination"].endswith(f":{address[1]}")}
    assert ("stall" in verdicts) is not nodelay
    if not nodelay:
        finding = found["Nagle meets delayed acknowledgement"]
        assert "the server had sent all of it" in finding["text"]
        assert "TCP_NODELAY" in finding["next"]


def test_a_server_that_pauses_itself_is_no_nagle(probe: Callable[..., Probe]) -> None:
    def answer(server: socket.socket) -> None:
        server.sendall(b"head")
        time.sleep(0.04)
        server.sendall(b"body")

    running = probe("latency")
    with served(answer) as address, socket.create_connection(address) as client:
        for _ in range(TIMES):
            ask(client)
        result = running.result()
    assert of(result, address[1]) == {} or not calm(result, address[1])


@pytest.mark.parametrize("lossy", [True, False])
def test_retransmission_within_requests(probe: Callable[..., Probe], lossy: bool) -> None:
    running = probe("latency")
    with lab() as bench:
        left, right = bench.pair()
        if lossy:
            rule = "tcp dport 9000 numgen inc mod 9 0 drop"
            right.run("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }")
            right.run("nft", f"add rule ip t c ct state established {rule}")
        with right.entered():
            server = served(at_once, "10.77.1.2", 9000)
            stack = ExitStack()
            stack.enter_context(server)
        with stack, left.entered(), socket.create_connection(("10.77.1.2", 9000)) as client:
            for _ in range(2 * TIMES):
                ask(client)
            result = running.result()
    assert ("retransmission within requests" in of(result, 9000)) is lossy


@pytest.mark.parametrize("slow", [True, False])
def test_a_reader_that_comes_late(probe: Callable[..., Probe], slow: bool) -> None:
    running = probe("latency")
    with served(lambda server: server.sendall(b"x" * LARGE)) as address, socket.create_connection(address) as client:
        for _ in range(3):
            ask(client, LARGE, 0.2 if slow else 0)
        client.sendall(b"?")  # the last one is over
        result = running.result()
    assert ("the reader comes late" in of(result, address[1])) is slow


@pytest.mark.parametrize("late", [LATE, 0])
def test_a_process_that_comes_late_to_its_data(probe: Callable[..., Probe], late: float) -> None:
    running = probe("latency")
    with served(at_once) as address, socket.create_connection(address) as client:
        for _ in range(TIMES):
            ask(client, late=late)
        result = running.result()
    found = of(result, address[1])
    assert not calm(result, address[1]) or found.keys() == ({"the process comes late to its data"} if late else set())


@pytest.mark.parametrize("late", [LATE, 0])
def test_requests_that_wait_for_the_servers_process(probe: Callable[..., Probe], late: float) -> None:
    running = probe("latency", "--set", "probe.latency.pickup=true")
    with served(at_once, pause=late) as address, socket.create_connection(address) as client:
        for _ in range(TIMES):
            ask(client)
        result = running.result()
    found = of(result, address[1])
    assert not calm(result, address[1]) or found.keys() == (
        {"requests wait for the server's process"} if late else set()
    )


@pytest.mark.parametrize("slow", [True, False])
def test_one_of_several_peers_is_slower(probe: Callable[..., Probe], slow: bool) -> None:
    def answer(server: socket.socket) -> None:
        time.sleep(0.002)
        at_once(server)

    def slowly(server: socket.socket) -> None:
        time.sleep(0.01)
        at_once(server)

    running = probe("latency")
    with ExitStack() as stack:
        _, port = stack.enter_context(served(answer))
        clients = [socket.create_connection(("127.0.0.1", port))]
        for number in (2, 3, 4):
            kind = slowly if slow and number == 4 else answer
            address = stack.enter_context(served(kind, f"127.0.0.{number}", port))
            clients.append(socket.create_connection(address))
        for client in clients:
            with client:
                for _ in range(TIMES):
                    ask(client)
        result = running.result()
    slower = [row["service"] for row in of(result, port).values()]
    assert not calm(result, port) or slower == ([f"127.0.0.4:{port}"] if slow else [])


def test_slow_requests_are_streamed_each_one_and_no_others(probe: Callable[..., Probe], tmp_path: Any) -> None:
    stream = tmp_path / "slow.jsonl"
    running = probe("latency", "--set", "probe.latency.slow=20ms", "--export", f"jsonl:{stream}")
    slow = 0

    def answer(server: socket.socket) -> None:
        nonlocal slow
        slow += 1
        time.sleep(0.025 if slow % 50 == 0 else 0)
        server.sendall(b"x" * 3000)

    times, own = 1001, []
    with served(answer) as address, socket.create_connection(address) as client:
        for _ in range(times):
            began = time.perf_counter()
            ask(client, 3000)
            own.append(time.perf_counter() - began)
        result = running.result()
    events = [line for line in map(json.loads, stream.read_text().splitlines()) if line["record"] == "event"]
    mine = [e for e in events if f":{address[1]}" in (e["source"] + e["destination"])]
    kinds = [e["type"] for e in mine]
    assert 20 <= kinds.count("service") <= kinds.count("request") <= sum(took >= 0.02 for took in own)
    assert all(e["latency_us"] + e["transfer_us"] >= 20_000 for e in mine)
    assert {e["bytes"] for e in mine} == {3000}
    assert all(e["process"] for e in mine)
    assert result["lost"]["slow_held_back"] == 0
    (row,) = [r for r in result["connections"].values() if r["destination"].endswith(f":{address[1]}")]
    assert row["events"] == times


def test_a_share_of_the_slowest_is_streamed(probe: Callable[..., Probe], tmp_path: Any) -> None:
    """Exchanges take 0.1 to 2 ms, at random: the slowest twentieth takes more than 1.9 ms."""
    stream = tmp_path / "slow.jsonl"
    running = probe("latency", "--set", "probe.latency.slow_share=0.05", "--export", f"jsonl:{stream}")
    generator = random.Random(1)

    def answer(server: socket.socket) -> None:
        time.sleep(generator.uniform(0.0001, 0.002))
        server.sendall(b"!")

    times = 3000
    with served(answer) as address, socket.create_connection(address) as client:
        for _ in range(times):
            ask(client, 1)
        running.result()
    events = [line for line in map(json.loads, stream.read_text().splitlines()) if line["record"] == "event"]
    mine = [e for e in events if e["destination"].endswith(f":{address[1]}")]
    assert 0.03 * times < len(mine) < 0.09 * times
    assert statistics.median(e["latency_us"] for e in mine) > 1700
