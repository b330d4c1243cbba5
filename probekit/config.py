"""TOML to attrs classes. Stage 1.

Every problem is found in one go and named by its TOML path; nothing is coerced, and no key is ignored.
"""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
import tomli
from attrs import frozen
from cattrs.gen import make_dict_structure_fn, override

from .errors import ConfigError, InputError
from .options import Bytes, Seconds, option, parse_bytes, parse_seconds


@frozen
class RunSettings:
    """How long to measure, and how often to look."""

    duration: Seconds | None = option(
        None, help="how long to measure; left out: until Ctrl-C", allowed="above 0", check=lambda v: v > 0,
        example='"60s"',
    )  # fmt: skip
    interval: Seconds = option(
        Seconds(10.0), help="time between two progress reports", allowed="at least 100ms", check=lambda v: v >= 0.1
    )


@frozen
class Export:
    """One exporter of the chain.

    Attributes:
        kind: The exporter's name.
        settings: An instance of its configuration class.
        place: Where it stands, for messages.
    """

    kind: str
    settings: Any
    place: str


@frozen
class Aggregate:
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
class Settings:
    """A whole configuration.

    Attributes:
        run: The `[run]` table.
        probes: Each probe's settings, an instance of its configuration class.
        aggregates: Aggregators added to these probes, in order.
        exports: The chain, in order.
    """

    run: RunSettings
    probes: Mapping[str, Any]
    aggregates: tuple[Aggregate, ...]
    exports: tuple[Export, ...]


TypeOf = Callable[[str], type]
"""The configuration class of a plugin's name; raises InputError for a name nobody has."""


def read(path: Path) -> dict[str, Any]:
    """The TOML document of a file.

    Raises:
        InputError: The file cannot be read.
        ConfigError: It is not TOML.
    """
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file", "`probekit config init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomli.TOMLDecodeError as error:
        raise ConfigError([f"not valid TOML: {error}"], str(path)) from None
    except (ValueError, RecursionError) as error:  # a number, or a nesting, beyond what tomli takes
        raise ConfigError([f"beyond what can be read: {error}"], str(path)) from None


def assign(document: dict[str, Any], assignment: str) -> None:
    """Carries out `probe.latency.sample=0.1` on a document; the value is TOML, a bare word a string.

    Raises:
        InputError: There is no `=`, or the path leads through something that is no table.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise InputError(f"--set {assignment}: has to be PATH=VALUE, such as probe.latency.sample=0.1")
    try:
        value = tomli.loads(f"value = {text.strip()}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    table: Any = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {assignment}: {key} is not a table")
    table[keys[-1]] = value


def structure(
    document: Mapping[str, Any],
    probes: tuple[str, ...],
    probe_type: TypeOf,
    aggregator_type: TypeOf,
    exporter_type: TypeOf,
    origin: str,
) -> Settings:
    """Makes settings of a document.

    Args:
        document: As `read` gives it; it may have tables of probes that do not run.
        probes: The probes to run; one without a table gets its defaults.
        probe_type: Configuration classes of probes.
        aggregator_type: Configuration classes of aggregators.
        exporter_type: Configuration classes of exporters.
        origin: The file's name, for messages.

    Raises:
        ConfigError: With every problem found.
    """
    problems: list[str] = []
    known = ("run", "probe", "aggregate", "export")
    problems += [f"{key}: unknown key{suggestion(key, known)}" for key in document if key not in known]
    run = _table(document.get("run", {}), RunSettings, "run", problems)
    tables = document.get("probe", {})
    if not isinstance(tables, dict):
        problems.append(f"probe = {_show(tables)}: has to be tables, such as [probe.latency]")
        tables = {}
    settings: dict[str, Any] = {}
    for name in dict.fromkeys((*probes, *tables)):
        try:
            kind = probe_type(name)
        except InputError as error:
            problems.append(f"probe.{name}: {error.message}" if name in tables else error.message)
            continue
        settings[name] = _table(tables.get(name, {}), kind, f"probe.{name}", problems)
    aggregates = _aggregates(document, aggregator_type, probe_type, problems)
    exports = [
        Export(kind, _table(table, kind_type, place, problems), place)
        for place, kind, table, kind_type in _kinds(document, "export", exporter_type, problems)
    ]
    if len(probes) > 1:
        for export in exports:
            path = getattr(export.settings, "path", "-")
            if path != "-" and "{probe}" not in path:
                problems.append(f'{export.place}.path = "{path}": has to contain {{probe}} when several probes run')
    if problems:
        raise ConfigError([_printable(problem) for problem in problems], origin)
    return Settings(
        run=run,
        probes={name: settings[name] for name in probes},
        aggregates=tuple(aggregate for aggregate in aggregates if aggregate.probe in probes),
        exports=tuple(exports),
    )


def _aggregates(
    document: Mapping[str, Any], type_of: TypeOf, probe_type: TypeOf, problems: list[str]
) -> list[Aggregate]:
    """Aggregators with the probe that each is added to, also those of probes that do not run."""
    aggregates: list[Aggregate] = []
    for place, kind, table, kind_type in _kinds(document, "aggregate", type_of, problems):
        probe = table.pop("probe", None)
        if not isinstance(probe, str):
            shown = f" = {_show(probe)}" if probe is not None else ""
            problems.append(f"{place}.probe{shown}: has to name the probe that it is added to")
            continue
        try:
            probe_type(probe)
        except InputError as error:
            problems.append(f"{place}.probe: {error.message}")
        if any((other.kind, other.probe) == (kind, probe) for other in aggregates):
            problems.append(f"{place}: {kind} is added to {probe} already")
        aggregates.append(Aggregate(kind, probe, _table(table, kind_type, place, problems)))
    return aggregates


def _kinds(
    document: Mapping[str, Any], key: str, type_of: TypeOf, problems: list[str]
) -> Iterator[tuple[str, str, dict[str, Any], type]]:
    """Of tables that each name a plugin: the place, its name, the rest of the table, its configuration class."""
    entries = document.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append(f"{key} = {_show(entries)}: has to be a list of tables, each headed [[{key}]]")
        return
    for number, entry in enumerate(entries):
        place = f"{key}[{number}]"
        kind = entry.get("kind")
        if not isinstance(kind, str):
            shown = f" = {_show(kind)}" if "kind" in entry else ""
            problems.append(f"{place}.kind{shown}: has to name {_EXAMPLES[key]}")
            continue
        try:
            kind_type = type_of(kind)
        except InputError as error:
            problems.append(f"{place}.kind: {error.message}")
            continue
        yield place, kind, {name: value for name, value in entry.items() if name != "kind"}, kind_type


_EXAMPLES = {"export": 'an exporter, such as kind = "json"', "aggregate": "an aggregator; `probekit list` shows them"}


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """`, did you mean ...?`, or what there is."""
    close = difflib.get_close_matches(name, known, 1, 0.6)
    if close:
        return f", did you mean {close[0]}?"
    return f" (there is: {', '.join(known)})" if known else " (there is none)"


def _table(given: Any, kind: type, path: str, problems: list[str]) -> Any:
    """An instance of an attrs class, or None with problems added."""
    if not isinstance(given, dict):
        problems.append(f"{path} = {_show(given)}: has to be a table")
        return None
    try:
        return _converter.structure(given, kind)
    except cattrs.ClassValidationError as error:
        problems.extend(_explain(error, given, path, tuple(field.name for field in attrs.fields(kind))))
    return None


def _explain(error: cattrs.ClassValidationError, given: Any, path: str, known: tuple[str, ...]) -> list[str]:
    """One line for each thing that cattrs found wrong in a table."""
    lines = []
    attributes, others = error.group_exceptions()
    for problem, note in attributes:
        place = f"{path}.{note.name}"
        if isinstance(problem, cattrs.ClassValidationError):
            lines += _explain(problem, given[note.name], place, tuple(f.name for f in attrs.fields(note.type)))
        elif isinstance(problem, KeyError):
            lines.append(f"{place}: is missing")
        else:
            lines.append(f"{place} = {_show(given[note.name])}: {problem}")
    for problem in others:
        if isinstance(problem, cattrs.ForbiddenExtraKeysError):
            lines += [f"{path}.{key}: unknown key{suggestion(key, known)}" for key in sorted(problem.extra_fields)]
        else:  # what two options together do not allow: the class itself says it
            lines.append(f"{path}: {problem}")
    return lines


def _show(value: Any) -> str:
    """A value as TOML has it, whatever is in it on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_show(entry) for entry in value)}]"
    return f'"{_printable(value)}"' if isinstance(value, str) else _printable(repr(value))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _exactly(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"has to be {words}")
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError("has to be a number")


def _seconds(value: Any, _: Any) -> Seconds:
    return parse_seconds(value if isinstance(value, str) else "")


def _bytes(value: Any, _: Any) -> Bytes:
    return Bytes(value) if type(value) is int and value >= 0 else parse_bytes(value if isinstance(value, str) else "")


def _literal(value: Any, kind: Any) -> Any:
    allowed = typing.get_args(kind)
    if value not in allowed:
        guess = difflib.get_close_matches(str(value), [str(word) for word in allowed], 1)
        meant = f"; did you mean {guess[0]}?" if guess else ""
        raise ValueError(f"has to be one of {', '.join(str(word) for word in allowed)}{meant}")
    return value


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _list(converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """A list as a tuple, each entry checked as one value would be."""

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError('has to be a list, such as ["NAME"]')
        entry = typing.get_args(kind)[0]
        made = []
        for number, given in enumerate(value):
            try:
                made.append(converter.structure(given, entry))
            except ValueError as error:
                raise ValueError(f"entry {number + 1}, {_show(given)}: {error}") from None
        return tuple(made)

    return structure


def _checked(converter: cattrs.Converter, attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Structures a field and runs its validator, so that a refusal carries the field's name."""

    def structure(value: Any, kind: Any) -> Any:
        made = converter.structure(value, kind)
        if attribute.validator is not None:
            attribute.validator(None, attribute, made)
        return made

    return structure


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda kind: kind == Seconds, _seconds)
    converter.register_structure_hook_func(lambda kind: kind == Bytes, _bytes)
    converter.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) == typing.Literal, _literal)
    converter.register_structure_hook_func(_is_list, _list(converter))

    def table(kind: type) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(kind)
        hooks = {a.name: override(struct_hook=_checked(converter, a)) for a in attrs.fields(kind)}
        return make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **hooks)  # type: ignore[arg-type]

    converter.register_structure_hook_factory(attrs.has, table)
    return converter


_converter = _make_converter()
