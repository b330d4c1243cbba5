"""Tables that exporters are to write, looked for before anything is measured.

A probe's tables are in its figures. Most have them before the first event already, without rows; of a probe that has
none then, the first snapshot tells. An exporter whose options have a `table` writes the one of that name. This module
is imported where one has: it takes NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import Export, suggestion
from ..errors import ConfigError, ProbekitError
from ..machine.look import Machine
from ..model import Attached, Joiner, Planned
from ..plugins import Plugins
from ..words import string
from .probe import parts_of


def check(planned: Iterable[Planned], exports: Iterable[Export], plugins: Plugins) -> None:
    """Refuses exporters of a table that a probe does not have.

    Raises:
        ConfigError: With each of them.
    """
    there = {probe.name: names(probe, plugins) for probe in planned}
    problems = [
        f"{export.place}.table = {string(wanted)}: the probe {probe} has no such table{suggestion(wanted, known)}"
        for export in exports
        if isinstance(wanted := getattr(export.settings, "table", ""), str) and wanted
        for probe, known in there.items()
        if known and wanted not in known
    ]
    if problems:
        raise ConfigError(problems)


def names(planned: Planned, plugins: Plugins) -> tuple[str, ...]:
    """The tables of a probe that everything is attached of; none where it cannot say them without events."""
    attached = tuple(Attached(o.name, o.points[0]) for o in planned.plan.observations if o.points)
    try:
        return tuple(_names(planned, plugins, attached))
    except ProbekitError:
        return ()


def _names(planned: Planned, plugins: Plugins, attached: tuple[Attached, ...]) -> Iterator[str]:
    for part in parts_of(planned, plugins, attached, began=0, machine=Machine()):
        with part.blaming("snapshot"):
            if isinstance(part.aggregator, Joiner):
                part.aggregator.join({})
            for table in part.aggregator.snapshot().tables:
                yield f"{part.name}.{table.name}" if part.name else table.name
