"""(b) What an event costs in the kernel: our programs and bpftrace's on the same traffic in the same run.

The kernel counts run time and runs of each program (kernel.bpf_stats_enabled); an empty program shows what the counting
itself costs, and is subtracted from all.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.tracing import with_tracefs

from . import peers, programs
from .programs import Program

ROUNDS = 5
REQUESTS = 60_000
EMPTY = "tracepoint:sock:sock_send_length { }"
ONE_LINER = (
    "tracepoint:sock:sock_send_length { @s[args->sk] = nsecs; } "
    "tracepoint:sock:sock_recv_length { if (@s[args->sk]) { @h = hist(nsecs - @s[args->sk]); delete(@s[args->sk]); } }"
)
LIBBPF_TOOLS = ("tcplife", "tcpstates")
CONNECTIONS = 3000


def run() -> dict[str, Any]:
    """Rounds of redis-benchmark with one client; nanoseconds net of the empty program."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(peers.redis(folder))
        stack.enter_context(peers.counted())
        empty = programs_of(stack, ["bpftrace", "-e", EMPTY])
        one_liner = programs_of(stack, ["bpftrace", "-e", ONE_LINER])
        tools = {name: programs_of(stack, [f"/usr/sbin/{name}"]) for name in LIBBPF_TOOLS}
        ours = programs.held(stack.enter_context(peers.probe()).pid)
        every = empty | one_liner | ours | set().union(*tools.values())
        rounds = []
        for _ in range(ROUNDS):
            start = programs.counts(every)
            peers.redis_benchmark(port, REQUESTS, clients=1)
            rounds.append(net(start, programs.counts(every), empty, one_liner, ours))
        start = programs.counts(every)
        _connect(CONNECTIONS)
        stop = programs.counts(every)
        floor = rounds[-1]["empty"]
        lives = {name: a_connection(start, stop, ids, floor) for name, ids in {"ours": ours, **tools}.items()}
    shares = [r["send and receive"] / r["one-liner"] for r in rounds]
    return {
        "rounds": rounds,
        "ns": {name: round(statistics.median(r[name] for r in rounds)) for name in rounds[0]},
        "ours_of_one_liner": round(statistics.median(shares), 3),
        "spread": peers.spread(shares),
        "ns_a_connection_that_opens_and_closes": lives,
    }


def _connect(times: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(times):
            with socket.create_connection(server.getsockname()):
                server.accept()[0].close()


def a_connection(start: dict[int, Program], stop: dict[int, Program], ids: set[int], floor: float) -> int | str:
    """What all runs of some programs took, net of the counting; a connection has two sockets here."""
    if not ids:
        return "does not attach on this kernel"
    all_of_them = programs.between(start, stop, ids)
    return round((all_of_them.nanoseconds - all_of_them.runs * floor) / CONNECTIONS)


def programs_of(stack: ExitStack, command: list[str]) -> set[int]:
    """Starts a peer; the programs that it has loaded. None where this kernel does not let it attach."""
    process = subprocess.Popen(with_tracefs(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return programs.settled(process)


def net(
    start: dict[int, Program], stop: dict[int, Program], empty: set[int], one_liner: set[int], ours: set[int]
) -> dict[str, float]:
    """Nanoseconds of a run of each program that ran with each request, net of what an empty one takes."""

    def cost(number: int) -> float:
        program = programs.between(start, stop, [number])
        return program.nanoseconds / program.runs if program.runs > REQUESTS else 0.0

    floor = max(cost(number) for number in empty)
    named = {stop[number].name: cost(number) - floor for number in ours if cost(number)}
    return {
        "empty": floor,
        "one-liner": sum(cost(number) - floor for number in one_liner if cost(number)),
        "send and receive": named["send_btf"] + named["receive_btf"],
        "arrival": named["readable_btf"],
    }
