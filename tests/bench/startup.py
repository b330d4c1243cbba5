"""(d) From exec to attached, cold and warm, and what stays in memory; beside it bcc in one process, same C source.

python -m tests.bench.startup is that peer: it imports bcc, compiles, loads and attaches, and waits.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import peers

ROUNDS = 5


def run() -> dict[str, Any]:
    """Seconds and megabytes."""
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(peers.header_tree())}
    ours = [peers.PROBEKIT, "run", "latency", "--export", "json:/dev/null"]
    theirs = [sys.executable, "-m", "tests.bench.startup"]
    with tempfile.TemporaryDirectory() as cache:
        cold, _ = _start(ours, {**os.environ, "XDG_CACHE_HOME": cache})
    warm: list[float] = []
    bcc: list[float] = []
    memory: dict[str, Any] = {}
    bcc_memory: dict[str, Any] = {}
    _start(ours, environment)
    for _ in range(ROUNDS):
        seconds, memory = _start(ours, environment)
        warm.append(seconds)
        seconds, bcc_memory = _start(theirs, environment)
        bcc.append(seconds)
    return {
        "cold_seconds": round(cold, 3),
        "warm_seconds": round(statistics.median(warm), 3),
        "bcc_seconds": round(statistics.median(bcc), 3),
        "warm_of_bcc": round(statistics.median(w / b for w, b in zip(warm, bcc, strict=True)), 3),
        "memory": memory,
        "bcc_memory": bcc_memory,
    }


def _start(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, Any]]:
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=peers.HERE.parents[1])
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("measuring"):
                break
        seconds = time.monotonic() - began
        time.sleep(1.5)
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in rollup[1:]}
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        return seconds, {
            "pss_mb": round(sizes["Pss"], 1),
            "rss_mb": round(sizes["Rss"], 1),
            "compiler_mapped": "libLLVM" in maps or "libclang" in maps,
        }
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """What a bcc tool does with our C source: everything in one process."""
    from bcc import BPF

    from probekit import plugins
    from probekit.attach import Tracepoint
    from probekit.cli import _structure
    from probekit.compile import sources
    from probekit.config import Document
    from probekit.machine import bpf, kernel
    from probekit.run import compose

    found, facts = plugins.discover(), kernel.detect()
    planned = compose.plan(_structure(Document({}), ("latency",), found), found, facts)[0].plan
    flags = [f"-I{path}" for path in sources.folders(planned)] + [f"-D{n}={v}" for n, v in planned.macros().items()]
    module = BPF(src_file=str(planned.source), cflags=flags + peers.bcc_flags())
    from probekit.machine.btf import Types, target_ids

    names = {"send_btf": "tcp_sendmsg_locked", "receive_btf": "tcp_rcv_space_adjust"}
    names |= {"readable_btf": "sk_data_ready", "state_btf": "inet_sock_set_state"}
    ids = target_ids(Types(facts.btf_bytes()), [("typedef", f"btf_trace_{name}") for name in names.values()])
    with ExitStack() as stack:
        for program, target in names.items():
            code = module.dump_func(program.encode())
            kind = (Tracepoint.program_type, Tracepoint.attach_type)
            fd, _ = bpf.load_program(kind, program, code, ids[f"typedef:btf_trace_{target}"])
            stack.callback(os.close, bpf.open_traced(fd))
        print("measuring", file=sys.stderr, flush=True)
        time.sleep(30)


if __name__ == "__main__":
    main()
