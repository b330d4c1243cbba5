"""probekit: a plugin-based eBPF probe framework.

What this module exports is the public API: the names in `__all__` and, of the modules among them, what those export
themselves. It changes incompatibly only with the major version, before 1.0 with the minor one; everything else may
change at any time.
"""

from __future__ import annotations

import pluggy

from .config.options import Bytes, Seconds, option
from .errors import ExportError, InputError
from .machine.kernel import KernelFacts
from .model import (
    ENDED,
    Aggregator,
    Array,
    Attached,
    AttachPlan,
    AttachPoint,
    Batch,
    Bucket,
    Column,
    Columns,
    Decoder,
    Deferred,
    Distribution,
    Ender,
    Events,
    Exporter,
    Figures,
    Kind,
    LiveMap,
    Observation,
    Run,
    Snapshot,
    Source,
    Streamer,
    Table,
)

__version__ = "0.1.0"

hook = pluggy.HookimplMarker("probekit")
"""Marks a function of a plugin as the implementation of the hook of its name."""

__all__ = [
    "ENDED", "Aggregator", "Array", "AttachPlan", "AttachPoint", "Attached", "Batch", "Bucket", "Bytes", "Column",
    "Columns", "Decoder", "Deferred", "Distribution", "Ender", "Events", "ExportError", "Exporter", "Figures",
    "InputError", "KernelFacts", "Kind", "LiveMap", "Observation", "Run", "Seconds", "Snapshot", "Source",
    "Streamer", "Table", "aggregate", "attach", "decode", "drain", "export", "hook", "host", "option", "testing",
]  # fmt: skip
