"""(g) What a drop costs in the kernel: our program, bpftrace's equivalent and what bcc's tcpdrop does, on one flood.

Datagrams go to a closed port of a network namespace, as fast as this machine sends them. All three programs see each of
them; the kernel counts runs and run time of each (kernel.bpf_stats_enabled), and an empty program shows what counting
itself costs. bcc's tcpdrop attaches a kprobe to tcp_drop, or the tracepoint kfree_skb through perf. Where that fails,
what its handler does (a stack, a perf event, addresses read field by field) is attached to the raw tracepoint instead,
without its restriction to TCP.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.netns import Namespace, lab

from . import peers, programs
from .kernel_path import programs_of
from .programs import Program

ROUNDS = 3
SENT = 50_000  # for the costs: what tcpdrop does takes Python a while to read
MANY = 2_000_000  # for the counts
BATCH = 64
PORT = 9999
EMPTY = "tracepoint:skb:kfree_skb { }"
ONE_LINER = "tracepoint:skb:kfree_skb { @[args->reason, args->location] = count(); }"
TCPDROP = r"""
struct seen { u64 time; u32 pid; u32 source; u32 destination; u16 source_port; u16 destination_port; u32 stack; };
BPF_PERF_OUTPUT(ipv4_events);
BPF_TABLE("stacktrace", int, struct bpf_stacktrace, stack_traces, 1024);
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
    with lab() as bench, tempfile.TemporaryDirectory() as folder:
        return {
            "counts": _counts(bench.namespace("flood"), Path(folder)),
            "costs": _costs(bench.namespace("peers"), Path(folder)),
        }


def _counts(space: Namespace, folder: Path) -> dict[str, Any]:
    """A flood with our program alone."""
    with _probe(folder) as (_, path):
        began = time.monotonic()
        _flood(space, MANY)
        seconds = time.monotonic() - began
    result = json.loads(path.read_text())
    rows = [r for r in result["flows"].values() if r["netns"] == space.name and r["reason"] == "NO_SOCKET"]
    return {
        "sent": MANY,
        "drops_per_second": round(MANY / seconds),
        "counted_by_the_kernel": space.snmp()["UdpNoPorts"],
        "counted_by_us": sum(row["drops"] for row in rows),
        "lost": {cause: count for cause, count in result["lost"].items() if count} or "nothing",
    }


def _costs(space: Namespace, folder: Path) -> dict[str, Any]:
    """A flood with all of them."""
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        stack.enter_context(peers.counted())
        empty = programs_of(stack, ["bpftrace", "-e", EMPTY])
        one_liner = programs_of(stack, ["bpftrace", "-e", ONE_LINER])
        setting = f"BCC_KERNEL_SOURCE={peers.header_tree()}"
        tcpdrop = programs_of(stack, ["env", setting, sys.executable, "-m", "tests.bench.drops"])
        pid, _ = stack.enter_context(_probe(folder))
        ours = programs.held(pid)
        every = empty | one_liner | tcpdrop | ours
        for _ in range(ROUNDS):
            start = programs.counts(every)
            _flood(space, SENT)
            stop = programs.counts(every)
            costs = {
                name: _cost(start, stop, ids)
                for name, ids in (("empty", empty), ("ours", ours), ("bpftrace", one_liner), ("tcpdrop", tcpdrop))
            }
            rounds.append({name: cost - costs["empty"] if name != "empty" else cost for name, cost in costs.items()})
    return {
        "rounds": rounds,
        "ns_a_drop": {name: round(statistics.median(r[name] for r in rounds)) for name in rounds[0]},
        "ours_of_bpftrace": peers.spread([r["ours"] / r["bpftrace"] for r in rounds]),
        "ours_of_tcpdrop": peers.spread([r["ours"] / r["tcpdrop"] for r in rounds]),
    }


@contextmanager
def _probe(folder: Path) -> Iterator[tuple[int, Path]]:
    """`probekit run drops` meanwhile; its process, and where its JSON is afterwards."""
    path = folder / "drops.json"
    command = [peers.PROBEKIT, "run", "drops", "--export", f"json:{path}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr
            assert running.stderr.readline().startswith("measuring")
            yield running.pid, path
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(60)


def _cost(start: dict[int, Program], stop: dict[int, Program], ids: set[int]) -> float:
    all_of_them = programs.between(start, stop, ids)
    return all_of_them.nanoseconds / all_of_them.runs if all_of_them.runs else float("nan")


def _flood(space: Namespace, count: int) -> None:
    """Datagrams to a closed port of loopback, from both cores."""
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            with space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                _send_batches(sender.fileno(), count // 2)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


class _Part(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("name_length", ctypes.c_uint32), ("parts", ctypes.POINTER(_Part)),
        ("part_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t), ("sent", ctypes.c_size_t),
    )  # fmt: skip


def _send_batches(descriptor: int, count: int) -> None:
    """Datagrams of one byte, many with each system call."""
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", PORT) + socket.inet_aton("127.0.0.1") + bytes(8)
    part = _Part(b"x", 1)
    messages = (_Message * BATCH)(*(_Message(address, 16, ctypes.pointer(part), 1) for _ in range(BATCH)))
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    while count > 0:
        sent = send(descriptor, messages, min(BATCH, count), 0)
        assert sent > 0, os.strerror(ctypes.get_errno())
        count -= sent


def main() -> None:
    """What bcc's tcpdrop does, in a process of its own."""
    from bcc import BPF

    program = BPF(text=TCPDROP, cflags=peers.bcc_flags())
    events = program["ipv4_events"]
    events.open_perf_buffer(lambda cpu, data, size: events.event(data))
    while True:
        program.perf_buffer_poll()


if __name__ == "__main__":
    main()
