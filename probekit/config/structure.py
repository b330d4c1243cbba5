"""TOML to attrs classes.

Every problem is found in one go and named by its TOML path; nothing is coerced, and no key is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError
from ..model import Added
from ..words import key, printable, show, string
from .convert import suggestion, table
from .settings import Export, RunSettings, Settings

TypeOf = Callable[[str], type]
"""The configuration class of a plugin's name; raises InputError for a name nobody has."""

MOST = 100
"""Problems that are told; who has more wrote something else."""

_EXAMPLES = {"export": 'an exporter, such as kind = "json"', "aggregate": "an aggregator; `probekit list` shows them"}


class _Problems(list[str]):
    """Lines for the user.

    Attributes:
        hint: What can be done about the first plugin that cannot be used.
    """

    hint = ""

    def of(self, error: InputError, place: str) -> None:
        """Adds what is wrong with the plugin that is named somewhere."""
        self.append(f"{place}: {error.message}" if place else error.message)
        self.hint = self.hint or error.hint


def structure(
    document: Mapping[str, Any],
    probes: tuple[str, ...],
    probe_type: TypeOf,
    aggregator_type: TypeOf,
    exporter_type: TypeOf,
    origin: str,
    spelled: Mapping[str, str] = {},
) -> Settings:
    """Makes settings of a document.

    Args:
        document: As `read` gives it; it may have tables of probes that do not run.
        probes: The probes to run; one without a table gets its defaults.
        probe_type: Configuration classes of probes.
        aggregator_type: Configuration classes of aggregators.
        exporter_type: Configuration classes of exporters.
        origin: The file's name, for messages.
        spelled: As `Document.spelled`.

    Raises:
        ConfigError: With every problem found.
    """
    problems = _Problems()
    known = ("run", "probe", "aggregate", "export")
    problems += [f"{key(name)}: unknown key{suggestion(name, known)}" for name in document if name not in known]
    run = table(document.get("run", {}), RunSettings, "run", spelled, problems)
    tables = document.get("probe", {})
    if not isinstance(tables, dict):
        problems.append(f"probe = {show(tables)}: has to be tables, such as [probe.latency]")
        tables = {}
    settings: dict[str, Any] = {}
    for name in dict.fromkeys((*probes, *tables)):
        place = f"probe.{key(name)}"
        try:
            kind = probe_type(name)
        except InputError as error:
            problems.of(error, place if name in tables else "")
            continue
        settings[name] = table(tables.get(name, {}), kind, place, spelled, problems)
    aggregates = _aggregates(document, aggregator_type, probe_type, spelled, problems)
    exports = [
        Export(kind, table(given, kind_type, place, spelled, problems), place)
        for place, kind, given, kind_type in _kinds(document, "export", exporter_type, problems)
    ]
    problems += _paths(exports, probes)
    if problems:
        more = [f"and {len(problems) - MOST} more problems"] if len(problems) > MOST else []
        raise ConfigError([printable(problem, 2000) for problem in problems[:MOST]] + more, origin, problems.hint)
    return Settings(
        run=run,
        probes={name: settings[name] for name in probes},
        aggregates=tuple(aggregate for aggregate in aggregates if aggregate.probe in probes),
        exports=tuple(exports),
    )


def _aggregates(
    document: Mapping[str, Any], type_of: TypeOf, probe_type: TypeOf, spelled: Mapping[str, str], problems: _Problems
) -> list[Added]:
    """Aggregators with the probe that each is added to, also those of probes that do not run."""
    aggregates: list[Added] = []
    for place, kind, given, kind_type in _kinds(document, "aggregate", type_of, problems):
        probe = given.pop("probe", None)
        if not isinstance(probe, str):
            shown = f" = {show(probe)}" if probe is not None else ""
            problems.append(f"{place}.probe{shown}: has to name the probe that it is added to")
            continue
        try:
            probe_type(probe)
        except InputError as error:
            problems.of(error, f"{place}.probe")
        if any((other.kind, other.probe) == (kind, probe) for other in aggregates):
            problems.append(f"{place}: {kind} is added to {probe} already")
        aggregates.append(Added(kind, probe, table(given, kind_type, place, spelled, problems)))
    return aggregates


def _kinds(
    document: Mapping[str, Any], name: str, type_of: TypeOf, problems: _Problems
) -> Iterator[tuple[str, str, dict[str, Any], type]]:
    """Of tables that each name a plugin: the place, its name, the rest of the table, its configuration class."""
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append(f"{name} = {show(entries)}: has to be a list of tables, each headed [[{name}]]")
        return
    for number, entry in enumerate(entries):
        place = f"{name}[{number}]"
        kind = entry.get("kind")
        if not isinstance(kind, str):
            shown = f" = {show(kind)}" if "kind" in entry else ""
            problems.append(f"{place}.kind{shown}: has to name {_EXAMPLES[name]}")
            continue
        try:
            kind_type = type_of(kind)
        except InputError as error:
            problems.of(error, f"{place}.kind")
            continue
        yield place, kind, {option: value for option, value in entry.items() if option != "kind"}, kind_type


def _paths(exports: Iterable[Export], probes: tuple[str, ...]) -> Iterator[str]:
    """Problems with where exporters write, which is what an option named `path` says: no two to one file."""
    writers: dict[str, Export] = {}
    for export in exports:
        path = getattr(export.settings, "path", "-")
        if not isinstance(path, str) or path == "-":  # what goes to standard output comes one after the other
            continue
        if len(probes) > 1 and "{probe}" not in path:
            yield f"{export.place}.path = {string(path)}: has to contain {{probe}} when several probes run"
            continue
        for probe in probes or ("{probe}",):
            file = _file(path, probe)
            other = writers.setdefault(file, export) if file else export
            if other is not export:
                yield (
                    f"{export.place}.path = {string(path)}: {other.place} writes there already, "
                    f"with path = {string(other.settings.path)}"
                )
                break


def _file(template: str, probe: str) -> str:
    """The file that a path leads to in the end; empty for what is none, and takes what comes: a pipe, a device."""
    try:
        path = Path(os.path.realpath(template.format(probe=probe)))
        return "" if path.exists() and not path.is_file() else str(path)
    except (OSError, ValueError, LookupError, AttributeError):  # another placeholder: the exporter's to refuse
        return template
