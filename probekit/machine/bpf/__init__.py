"""The system calls, through libbcc_bpf: bcc's small library, which has no compiler in it.

Thin: one function a call, plain values in and out, OSError on refusal. The library is loaded with the first call.
"""

from __future__ import annotations

from .devices import xdp_program, xdp_runs
from .library import ENOTSUPP
from .links import attach_iterator, attach_kprobe, cgroup_root, create_link, iterate, open_traced
from .maps import create_map, items, items_singly, locked_bytes, lookup, update
from .programs import (
    LOG_INSTRUCTIONS,
    LOG_WORDS,
    enable_stats,
    load_filter,
    load_program,
    program_info,
    test_run,
    value_address,
)

__all__ = [
    "ENOTSUPP", "LOG_INSTRUCTIONS", "LOG_WORDS", "attach_iterator", "attach_kprobe", "cgroup_root", "create_link",
    "create_map", "enable_stats", "items", "items_singly", "iterate", "load_filter", "load_program", "locked_bytes",
    "lookup", "open_traced", "program_info", "test_run", "update", "value_address", "xdp_program", "xdp_runs",
]  # fmt: skip
