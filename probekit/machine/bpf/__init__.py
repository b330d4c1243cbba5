"""The system calls, through libbcc_bpf: bcc's small library, which has no compiler in it.

Thin: one function a call, plain values in and out, OSError on refusal. The library is loaded with the first call.
"""

from __future__ import annotations

from .devices import xdp_program, xdp_runs
from .library import ENOTSUPP
from .links import attach, attach_to_hooks, iterate
from .maps import create_map, items, locked_bytes, lookup, update
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
    "ENOTSUPP", "LOG_INSTRUCTIONS", "LOG_WORDS", "attach", "attach_to_hooks", "create_map", "enable_stats", "items",
    "iterate", "load_filter", "load_program", "locked_bytes", "lookup", "program_info", "test_run", "update",
    "value_address", "xdp_program", "xdp_runs",
]  # fmt: skip
