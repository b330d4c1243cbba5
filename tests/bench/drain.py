"""(a) One core makes events as fast as it can, the other one reads: our reader, bcc's two callbacks.

python -m tests.bench.drain numpy|ring|perf full|half prints what one reader did.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

from . import peers

SECONDS = 3.0
BURST, PAGES = 16, 4096
NR_GETPPID = 110 if os.uname().machine == "x86_64" else 173
NO_WAKEUP = 1


def run() -> dict[str, Any]:
    """Each reader at full rate and at half of it."""
    results: dict[str, Any] = {}
    for rate in ("full", "half"):
        readers = {reader: peers.in_process("drain", reader, rate) for reader in ("numpy", "ring", "perf")}
        ours, ring, perf = (readers[name]["cpu_ns_per_event"] for name in ("numpy", "ring", "perf"))
        results[rate] = {
            **readers,
            "less_cpu_than_bcc_ring": round(ring / ours, 1),
            "less_cpu_than_bcc_perf": round(perf / ours, 1),
        }
    return results


def _generate(seconds: float) -> int:
    """A child on the last core that makes events for a while, as fast as it can or every other millisecond."""
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
        library = ctypes.CDLL(None)
        half = sys.argv[2] == "half"
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if half and int(now * 1000) % 2:
                continue
            for _ in range(200):
                library.syscall(NR_GETPPID)
        os._exit(0)
    return child


def _numpy() -> dict[str, Any]:
    from contextlib import ExitStack

    from probekit import AttachPlan, Observation
    from probekit.attach import Tracepoint
    from probekit.compile import compile_plan
    from probekit.drain import PerCpuArray, Ring
    from probekit.drain.ring import RingReader
    from probekit.load import Gate, Loaded
    from probekit.machine import kernel

    facts = kernel.detect()
    plan = AttachPlan(
        source=peers.HERE / "drain.bpf.c",
        observations=(Observation("calls", (Tracepoint("sys_enter", "emit"),)),),
        sources=(Ring("events"), PerCpuArray("counts")),
        defines={"PAGES": PAGES, "BURST": BURST, "FLAG": NO_WAKEUP, "NR_GETPPID": NR_GETPPID},
    )
    with ExitStack() as stack:
        gate = stack.enter_context(Gate())
        loaded = stack.enter_context(Loaded(compile_plan(plan, facts), plan, facts, gate))
        readers = [source.open(loaded.maps[source.name], facts.cpus) for source in plan.sources]
        ring = readers[0]
        assert isinstance(ring, RingReader)
        loaded.attach()
        gate.open()
        child = _generate(SECONDS)
        began, cpu, total = time.monotonic(), time.process_time(), 0
        while time.monotonic() < began + SECONDS:
            time.sleep(0.01)
            batch = ring.read()
            if batch is not None:
                total += int(batch.data["latency"].sum())
        cpu = time.process_time() - cpu
        os.waitpid(child, 0)
        ring.read()
        counts = readers[1].read()
        assert counts is not None
        produced, lost = (int(n) for n in counts.data.sum(axis=0))
        return _report(ring.delivered, produced, lost, cpu)


def _bcc(perf: bool) -> dict[str, Any]:
    from bcc import BPF

    source = (peers.HERE / "drain.bpf.c").read_text()
    defines = {"PAGES": PAGES, "BURST": BURST, "FLAG": 0, "NR_GETPPID": NR_GETPPID}
    flags = [f"-D{name}={value}" for name, value in defines.items()] + (["-DPERF"] if perf else []) + peers.bcc_flags()
    bpf = BPF(
        text=source.replace("u64 *ctx", "struct bpf_raw_tracepoint_args *ctx").replace("ctx[1]", "ctx->args[1]"),
        cflags=flags,
    )
    bpf.load_func("emit", BPF.RAW_TRACEPOINT)
    bpf.attach_raw_tracepoint(b"sys_enter", b"emit")
    seen = 0
    events = bpf["events"]

    def on_event(_context: Any, data: Any, _size: Any) -> None:
        nonlocal seen
        events.event(data).latency  # noqa: B018  (what a bcc tool does with an event)
        seen += 1

    if perf:
        events.open_perf_buffer(lambda cpu, data, size: on_event(cpu, data, size), page_cnt=PAGES)
    else:
        events.open_ring_buffer(on_event)
    child = _generate(SECONDS)
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + SECONDS:
        bpf.perf_buffer_poll(10) if perf else bpf.ring_buffer_poll(10)
    cpu = time.process_time() - cpu
    os.waitpid(child, 0)
    produced, lost = (bpf["counts"].sum(i).value for i in (0, 1))
    return _report(seen, produced, lost, cpu)


def _report(seen: int, produced: int, lost: int, cpu: float) -> dict[str, Any]:
    return {
        "events_per_second": round(seen / SECONDS),
        "cpu_ns_per_event": round(cpu / max(seen, 1) * 1e9, 1),
        "lost_percent": round(100 * lost / max(produced, 1), 2),
    }


def main() -> None:
    """One reader."""
    os.sched_setaffinity(0, {0})
    print(json.dumps(_numpy() if sys.argv[1] == "numpy" else _bcc(perf=sys.argv[1] == "perf")))


if __name__ == "__main__":
    main()
