"""What a probe wants of the kernel, before anything touched it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from .points import AttachPoint
from .sources import Source

LAYOUT = "_layout"
"""A map of this ending is never made: the C source has it to describe the records of the ring buffer before it."""
ENDED = "ended"
"""The parameter that is 1 when the run has ended."""


@frozen
class Observation:
    """Something to observe, with the ways of doing so, best first.

    Attributes:
        name: A word for it, shown to users.
        points: Alternatives; the first one that works on this kernel is taken.
        needed: Without it the probe cannot run; otherwise `without` is what is lost.
        without: What the figures lack where no alternative works.
    """

    name: str
    points: tuple[AttachPoint, ...]
    needed: bool = True
    without: str = ""


@frozen
class AttachPlan:
    """What a probe wants of the kernel. Data only; making one has no effect.

    Attributes:
        source: The C file.
        observations: What to observe.
        sources: Where the data comes from.
        defines: Macros for the compiler.
        enums: Whose members are macros, too: `END_CLOSED` for `End.CLOSED`.
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
    enums: tuple[type[enum.IntEnum], ...] = ()

    def programs(self) -> tuple[str, ...]:
        """The C functions that may be attached, each once, in the plan's order."""
        return tuple(dict.fromkeys(point.program for point in self.points() if point.program))

    def macros(self) -> dict[str, int]:
        """All macros for the compiler."""
        members = {f"{kind.__name__.upper()}_{entry.name}": int(entry) for kind in self.enums for entry in kind}
        return {**members, **self.defines}

    def points(self) -> Iterator[AttachPoint]:
        """All alternatives of all observations."""
        return (point for observation in self.observations for point in observation.points)


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
