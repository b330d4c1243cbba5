"""The values that pass between the stages, frozen and without behaviour: the only thing that all stages import.

config -> plan -> compile -> load -> attach -> drain -> decode -> aggregate -> export
  Settings  AttachPlan  Object   LiveMap  Attached   Batch   Columns   Figures     Snapshot
"""

from __future__ import annotations

from .batch import Array, Batch, Columns
from .figures import SCHEME, Bucket, Column, Deferred, Distribution, Events, Figures, Kind, Run, Snapshot, Table
from .object import Attached, Compiled, Hindrance, LiveMap, MapSpec, Object, Refusal
from .plan import ENDED, LAYOUT, Added, AttachPlan, Observation, Planned
from .points import AttachPoint, BtfName
from .roles import Aggregator, Decoder, Ender, Exporter, Joiner, Streamer
from .sources import Reader, Source

__all__ = [
    "ENDED",
    "LAYOUT",
    "SCHEME",
    "Added",
    "Aggregator",
    "Array",
    "AttachPlan",
    "AttachPoint",
    "Attached",
    "Batch",
    "BtfName",
    "Bucket",
    "Column",
    "Columns",
    "Compiled",
    "Decoder",
    "Deferred",
    "Distribution",
    "Ender",
    "Events",
    "Exporter",
    "Figures",
    "Hindrance",
    "Joiner",
    "Kind",
    "LiveMap",
    "MapSpec",
    "Object",
    "Observation",
    "Planned",
    "Reader",
    "Refusal",
    "Run",
    "Snapshot",
    "Source",
    "Streamer",
    "Table",
]
