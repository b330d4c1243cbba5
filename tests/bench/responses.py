"""What a request costs whose response has one, ten or 700 parts, beside the release before on the same traffic.

PROBEKIT_BEFORE names that one's command. The kernel counts run time and runs of each program; what an empty program
shows is subtracted.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import threading
from contextlib import ExitStack
from typing import Any

from . import kernel_path, peers, programs

EXCHANGES = {1: 20_000, 10: 3000, 700: 60}
ROUNDS = 5
PART = 1000


def run() -> dict[str, Any]:
    """Nanoseconds of an exchange, both ends together, net of the empty program; medians of rounds, and ratios."""
    with ExitStack() as stack:
        stack.enter_context(peers.counted())
        empty = kernel_path.programs_of(stack, ["bpftrace", "-e", kernel_path.EMPTY])
        each = {"now": programs.held(stack.enter_context(peers.probe()).pid)}
        before = os.environ.get("PROBEKIT_BEFORE")
        if before:
            each["before"] = programs.held(_started(stack, before))
        return {f"{parts} parts": _compared(parts, times, each, empty) for parts, times in EXCHANGES.items()}


def _started(stack: ExitStack, command: str) -> int:
    running = subprocess.Popen(
        [command, "run", "latency", "--export", "json:/dev/null"], stderr=subprocess.PIPE, text=True
    )
    stack.callback(running.wait, 30)
    stack.callback(running.send_signal, signal.SIGINT)
    assert running.stderr is not None
    assert running.stderr.readline().startswith("measuring")
    return running.pid


def _compared(parts: int, times: int, each: dict[str, set[int]], empty: set[int]) -> dict[str, Any]:
    ids = empty.union(*each.values())
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        start = programs.counts(ids)
        _exchange(parts, times)
        stop = programs.counts(ids)
        floor = max(_cost(start, stop, {number}) for number in empty)
        rounds.append(
            {
                name: (total.nanoseconds - total.runs * floor) / times
                for name, total in _totals(start, stop, each).items()
            }
        )
    found: dict[str, Any] = {
        f"{name}_ns": round(statistics.median(taken[name] for taken in rounds)) for name in rounds[0]
    }
    if "before" in each:
        found["now_of_before"] = peers.spread([taken["now"] / taken["before"] for taken in rounds])
    return found


def _totals(
    start: dict[int, programs.Program], stop: dict[int, programs.Program], each: dict[str, set[int]]
) -> dict[str, programs.Program]:
    return {name: programs.between(start, stop, ids) for name, ids in each.items()}


def _cost(start: dict[int, programs.Program], stop: dict[int, programs.Program], ids: set[int]) -> float:
    program = programs.between(start, stop, ids)
    return program.nanoseconds / program.runs if program.runs else 0.0


def _exchange(parts: int, times: int) -> None:
    """Requests on one connection, each answered in so many parts."""
    part = b"x" * PART

    def serve() -> None:
        accepted, _ = server.accept()
        with accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while accepted.recv(9):
                for _ in range(parts):
                    accepted.send(part)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            for _ in range(times):
                client.send(b"?")
                left = parts * PART
                while left:
                    left -= len(client.recv(left))
        thread.join(20)
