"""What a probe wants of the kernel, before anything touched it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

LAYOUT = "_layout"
"""A map of this ending is never made: the C source has it to describe the records of the ring buffer before it."""
ENDED = "ended"
"""The parameter that is 1 when the run has ended."""


class Way(str, enum.Enum):
    """A way of attaching a program to the kernel."""

    FENTRY = "fentry"  # at the beginning of a kernel function, with typed arguments
    FEXIT = "fexit"  # at its end, with its result
    KPROBE = "kprobe"  # at the beginning of a kernel function, with the registers
    TRACEPOINT = "tracepoint"  # a raw tracepoint whose arguments have BTF types
    XDP = "xdp"  # on a device that has no XDP program
    XDP_EXIT = "xdp exit"  # at the end of the XDP program that a device has
    XDP_RUNS = "xdp runs"  # no program of ours: the kernel counts how often the device's runs
    TCX_INGRESS = "tcx ingress"  # before every other program there
    TCX_EGRESS = "tcx egress"  # the same, for what the device sends
    NETFILTER = "netfilter"  # a function at hooks of this network namespace
    CGROUP_INGRESS = "cgroup ingress"  # at the sockets of a cgroup and all below
    ITERATOR = "iterator"  # the kernel calls the program with each of its objects whenever the sources are drained


@frozen
class AttachPoint:
    """One way of observing something.

    Attributes:
        way: How the program is attached.
        target: The kernel's name of the function, tracepoint or kind of object; of XDP and TC the device's; of
            netfilter FAMILIES/HOOKS/PRIORITY in numbers, with commas between several; of a cgroup its folder, / for the
            root.
        program: The C function that is attached; empty where the kernel itself counts.
    """

    way: Way
    target: str
    program: str


@frozen
class Observation:
    """Something to observe, with the ways of doing so, best first.

    Attributes:
        name: A word for it, shown to users.
        points: Alternatives; the first one that works on this kernel is taken.
        needed: Without it the probe cannot run; otherwise `without` is what is lost.
        without: What the figures lack where no alternative works.
        per_namespace: An iterator goes through the objects of one network namespace, and is run in each.
    """

    name: str
    points: tuple[AttachPoint, ...]
    needed: bool = True
    without: str = ""
    per_namespace: bool = False


class SourceKind(str, enum.Enum):
    """How a map is drained."""

    RING = "ring"  # records, each delivered once
    TABLE = "table"  # a mappable array of slots: the live ones, as they are now
    PERCPU = "percpu"  # a per-CPU array: shape (CPUs, entries), as they are now
    HASH = "hash"  # a hash: fields `key` and `value`, as they are now


@frozen
class Source:
    """A map that the probe's data comes from.

    Attributes:
        map: The map's name in the C source; batches carry it.
        kind: How it is drained.
        live: For a table: the field that is 0, in all its elements, where the slot is free.
    """

    map: str
    kind: SourceKind
    live: str = ""


@frozen
class AttachPlan:
    """What a probe wants of the kernel. Data only; making one has no effect.

    Attributes:
        source: The C file.
        observations: What to observe.
        sources: Where the data comes from.
        defines: Macros for the compiler.
        parameters: What is known when the run begins only, and is none of the object's: fields of the only entry of
            the map `parameters`, all whole numbers. One named `ended` is 1 when the run is over, and iterators are run
            for the last time.
        include: Folders for `#include "..."`, beside the C file's own and probekit's.
    """

    source: Path
    observations: tuple[Observation, ...]
    sources: tuple[Source, ...]
    defines: Mapping[str, int] = field(factory=dict)
    parameters: Mapping[str, int] = field(factory=dict)
    include: tuple[Path, ...] = ()

    def programs(self) -> tuple[str, ...]:
        """The C functions that may be attached, each once, in the plan's order."""
        return tuple(dict.fromkeys(point.program for o in self.observations for point in o.points if point.program))


@frozen
class Added:
    """An aggregator that is added to a probe.

    Attributes:
        kind: The aggregator's name.
        probe: The probe's name.
        settings: An instance of its configuration class.
    """

    kind: str
    probe: str
    settings: Any


@frozen
class Planned:
    """A probe that is put together but has not touched the kernel.

    Attributes:
        name: The probe's name.
        config: An instance of its configuration class.
        plan: What it wants of the kernel.
        aggregates: Aggregators that are added to its own.
    """

    name: str
    config: Any
    plan: AttachPlan
    aggregates: tuple[Added, ...] = ()
