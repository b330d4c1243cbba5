"""What a request costs whose response has one, ten or 700 parts, beside the release before on the same traffic.

PROBEKIT_BEFORE names that one's command. The kernel counts run time and runs of each program; what an empty program
shows is subtracted.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
from contextlib import ExitStack
from typing import Any

from . import kernel_path, peers, programs

EXCHANGES = {1: 20_000, 10: 3000, 700: 60}
ROUNDS = 10
_BEFORE = os.environ.get("PROBEKIT_BEFORE", "")
PART = 1000


def run() -> dict[str, Any]:
    """Nanoseconds of an exchange, both ends together, net of the empty program; medians of rounds, and ratios.

    Each is attached alone, in turns: who comes first at an event pays for the cache lines that both need.
    """
    commands = {"now": peers.PROBEKIT, **({"before": _BEFORE} if _BEFORE else {})}
    with ExitStack() as stack:
        stack.enter_context(peers.counted())
        empty = kernel_path.programs_of(stack, ["bpftrace", "-e", kernel_path.EMPTY])
        turns = (commands, dict(reversed(commands.items())))
        rounds = [_round(turns[number % 2], empty) for number in range(ROUNDS)]
    return {f"{parts} parts": _figures([taken[parts] for taken in rounds]) for parts in EXCHANGES}


def _round(commands: dict[str, str], empty: set[int]) -> dict[int, dict[str, float]]:
    """Of each number of parts, what an exchange costs each of them, ns."""
    taken: dict[int, dict[str, float]] = {parts: {} for parts in EXCHANGES}
    for name, command in commands.items():
        with peers.probe(probekit=command) as running:
            ours = programs.held(running.pid)
            for parts, times in EXCHANGES.items():
                _exchange(parts, max(times // 20, 5))
                start = programs.counts(ours | empty)
                _exchange(parts, times)
                stop = programs.counts(ours | empty)
                floor = max(_cost(start, stop, {number}) for number in empty)
                total = programs.between(start, stop, ours)
                taken[parts][name] = (total.nanoseconds - total.runs * floor) / times
    return taken


def _figures(rounds: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{name}_ns": round(statistics.median(taken[name] for taken in rounds)) for name in sorted(rounds[0])
    }
    if "before" in rounds[0]:
        found["now_of_before"] = peers.spread([taken["now"] / taken["before"] for taken in rounds])
    return found


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
