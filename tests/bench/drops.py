"""(g) What a drop costs in the kernel: our program, bpftrace's equivalent and what bcc's tcpdrop does, on one flood.

Datagrams go to a closed port of a network namespace, as fast as this machine sends them. All three programs see each of
them; the kernel counts runs and run time of each (kernel.bpf_stats_enabled), and an empty program shows what counting
itself costs. bcc's tcpdrop attaches a kprobe to tcp_drop, or the tracepoint kfree_skb through perf. Where that fails,
what its handler does (a stack, a perf event, addresses read field by field) is attached to the raw tracepoint instead,
without its restriction to TCP.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.kernel.netns import Namespace, lab

from . import peers
from .kernel_path import _programs, _programs_of

ROUNDS = 3
SENT = 300_000
PORT = 9999
EMPTY = "tracepoint:skb:consume_skb { }"
ONE_LINER = "tracepoint:skb:kfree_skb { @[args->reason, args->location] = count(); }"
TCPDROP = r"""
struct seen { u64 time; u32 pid; u32 source; u32 destination; u16 source_port; u16 destination_port; u32 stack; };
BPF_PERF_OUTPUT(ipv4_events);
BPF_STACK_TRACE(stack_traces, 1024);
RAW_TRACEPOINT_PROBE(kfree_skb) {
  struct sk_buff *skb = (void *)ctx->args[0];
  struct seen data = {.pid = bpf_get_current_pid_tgid() >> 32, .time = bpf_ktime_get_ns()};
  unsigned char *head = 0;
  u16 at = 0, ports[2] = {};
  bpf_probe_read_kernel(&head, sizeof(head), &skb->head);
  bpf_probe_read_kernel(&at, sizeof(at), &skb->network_header);
  bpf_probe_read_kernel(&data.source, 4, head + at + 12);
  bpf_probe_read_kernel(&data.destination, 4, head + at + 16);
  bpf_probe_read_kernel(ports, sizeof(ports), head + at + 20);
  data.source_port = ports[0];
  data.destination_port = ports[1];
  data.stack = stack_traces.get_stackid(ctx, 0);
  ipv4_events.perf_submit(ctx, &data, sizeof(data));
  return 0;
}
"""


def run() -> dict[str, Any]:
    """Nanoseconds a drop, net of an empty program; counts against the kernel's own."""
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        bench = stack.enter_context(lab())
        space = bench.namespace("flood")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(peers.counted())
        empty = _programs_of(stack, ["bpftrace", "-e", EMPTY])
        one_liner = _programs_of(stack, ["bpftrace", "-e", ONE_LINER])
        environment = {**os.environ, "BCC_KERNEL_SOURCE": str(peers.header_tree())}
        tcpdrop = _programs_of(stack, ["env", *_settings(environment), sys.executable, "-m", "tests.bench.drops"])
        before = set(_programs())
        path = folder / "drops.json"
        command = [peers.PROBEKIT, "run", "drops", "--export", f"json:{path}"]
        ours_process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stack.callback(ours_process.wait)
        assert ours_process.stderr
        assert ours_process.stderr.readline().startswith("measuring")
        ours = set(_programs()) - before
        rates = []
        for _ in range(ROUNDS):
            start, began = _programs(), time.monotonic()
            _flood(space, SENT)
            rates.append(SENT / (time.monotonic() - began))
            stop = _programs()
            costs = {
                name: _cost(start, stop, ids)
                for name, ids in (("empty", empty), ("ours", ours), ("bpftrace", one_liner), ("tcpdrop", tcpdrop))
            }
            rounds.append({name: cost - costs["empty"] if name != "empty" else cost for name, cost in costs.items()})
        counted = space.snmp()["UdpNoPorts"]
        ours_process.send_signal(signal.SIGINT)
        ours_process.wait(60)
        result = json.loads(path.read_text())
    rows = [r for r in result["flows"].values() if r["netns"] == space.name and r["reason"] == "NO_SOCKET"]
    return {
        "rounds": rounds,
        "ns_a_drop": {name: round(statistics.median(r[name] for r in rounds)) for name in rounds[0]},
        "ours_of_bpftrace": peers.spread([r["ours"] / r["bpftrace"] for r in rounds if r["bpftrace"] > 0]),
        "ours_of_tcpdrop": peers.spread([r["ours"] / r["tcpdrop"] for r in rounds if r["tcpdrop"] > 0]),
        "drops_per_second_with_all_attached": round(statistics.median(rates)),
        "sent": ROUNDS * SENT,
        "counted_by_the_kernel": counted,
        "counted_by_us": sum(row["drops"] for row in rows),
        "lost": {cause: count for cause, count in result["lost"].items() if count},
        "attached": {"bpftrace": len(one_liner), "what tcpdrop does": len(tcpdrop)},
    }


def _settings(environment: dict[str, str]) -> list[str]:
    return [f"BCC_KERNEL_SOURCE={environment['BCC_KERNEL_SOURCE']}"]


def _cost(start: dict[int, Any], stop: dict[int, Any], programs: set[int]) -> float:
    runs = sum(stop[n].get("run_cnt", 0) - start[n].get("run_cnt", 0) for n in programs if n in start)
    spent = sum(stop[n].get("run_time_ns", 0) - start[n].get("run_time_ns", 0) for n in programs if n in start)
    return float(spent / runs) if runs else float("nan")


def _flood(space: Namespace, count: int) -> None:
    """Datagrams to a closed port of loopback, from both cores."""
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            with space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(count // 2):
                    sender.sendto(b"x", ("127.0.0.1", PORT))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def main() -> None:
    """What bcc's tcpdrop does, in a process of its own."""
    from bcc import BPF

    tree = os.environ["BCC_KERNEL_SOURCE"]
    program = BPF(text=TCPDROP, cflags=[f'-DPROBEKIT_TYPES="{tree}/include/vmlinux.h"', "-fms-extensions"])
    events = program["ipv4_events"]
    events.open_perf_buffer(lambda cpu, data, size: events.event(data))
    while True:
        program.perf_buffer_poll()


if __name__ == "__main__":
    main()
