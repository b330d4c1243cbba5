"""(b) What an event costs in the kernel: our programs and bpftrace's on the same traffic in the same run.

The kernel counts run time and runs of each program (kernel.bpf_stats_enabled); an empty program shows what the counting
itself costs, and is subtracted from all.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.tracing import with_tracefs

from . import peers

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
        empty = _programs_of(stack, ["bpftrace", "-e", EMPTY])
        one_liner = _programs_of(stack, ["bpftrace", "-e", ONE_LINER])
        tools = {name: _programs_of(stack, [f"/usr/sbin/{name}"]) for name in LIBBPF_TOOLS}
        before = set(_programs())
        stack.enter_context(peers.probe())
        ours = set(_programs()) - before
        rounds = []
        for _ in range(ROUNDS):
            start = _programs()
            peers.redis_benchmark(port, REQUESTS, clients=1)
            rounds.append(_net(start, _programs(), empty, one_liner, ours))
        start = _programs()
        _connect(CONNECTIONS)
        stop = _programs()
        floor = rounds[-1]["empty"]
        lives = {name: _a_connection(start, stop, ids, floor) for name, ids in {"ours": ours, **tools}.items()}
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


def _a_connection(start: dict[int, Any], stop: dict[int, Any], programs: set[int], floor: float) -> int | str:
    """What all runs of some programs took, net of the counting; a connection has two sockets here."""
    if not programs:
        return "does not attach on this kernel"
    spent: int = sum(stop[n].get("run_time_ns", 0) - start[n].get("run_time_ns", 0) for n in programs)
    runs: int = sum(stop[n].get("run_cnt", 0) - start[n].get("run_cnt", 0) for n in programs)
    return round(float(spent - runs * floor) / CONNECTIONS)


def _programs() -> dict[int, dict[str, Any]]:
    shown = subprocess.run(["bpftool", "--json", "prog", "show"], check=True, capture_output=True, text=True)
    return {program["id"]: program for program in json.loads(shown.stdout)}


def _programs_of(stack: ExitStack, command: list[str]) -> set[int]:
    """Starts a peer; the programs that it has loaded. None where this kernel does not let it attach."""
    before = set(_programs())
    tool = with_tracefs(*command)
    process = subprocess.Popen(tool, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    end = time.monotonic() + 15
    while time.monotonic() < end and process.poll() is None and set(_programs()) == before:
        time.sleep(0.1)
    time.sleep(1)
    return set(_programs()) - before


def _net(
    start: dict[int, Any], stop: dict[int, Any], empty: set[int], one_liner: set[int], ours: set[int]
) -> dict[str, float]:
    def cost(number: int) -> float:
        runs = stop[number].get("run_cnt", 0) - start[number].get("run_cnt", 0)
        spent = stop[number].get("run_time_ns", 0) - start[number].get("run_time_ns", 0)
        return float(spent / runs) if runs > REQUESTS else 0.0

    floor = max(cost(number) for number in empty)
    named = {stop[number]["name"]: cost(number) - floor for number in ours if cost(number)}
    return {
        "empty": floor,
        "one-liner": sum(cost(number) - floor for number in one_liner),
        "send and receive": named["send_btf"] + named["receive_btf"],
        "arrival": named["readable_btf"],
    }
