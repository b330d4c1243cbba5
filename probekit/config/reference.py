"""What configuration classes say of themselves: a commented TOML file, and the reference in the documentation."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..words import key, string
from . import RunSettings
from .options import Bytes, Seconds, format_bytes, format_seconds, of_option


def toml(probes: Mapping[str, type], exporters: Mapping[str, type]) -> str:
    """A configuration file with every option at its default.

    Args:
        probes: Configuration classes of the probes to run.
        exporters: Of the exporters to chain.
    """
    parts = ["[run]", *_options(RunSettings)]
    for name, kind in probes.items():
        parts += ["", *_comment(kind), f"[probe.{key(name)}]", *_options(kind)]
    for name, kind in exporters.items():
        parts += [
            "",
            *_comment(kind),
            "[[export]]",
            f"kind = {string(name)}",
            *_options(kind, _export_path(name, kind)),
        ]
    return "\n".join(parts) + "\n"


def markdown(probes: Mapping[str, type], exporters: Mapping[str, type]) -> str:
    """The reference of all options, as tables."""
    sections: list[tuple[str, type]] = [("`[run]`", RunSettings)]
    sections += [(f"`[probe.{name}]`", kind) for name, kind in sorted(probes.items())]
    sections += [(f'`[[export]]` with `kind = "{name}"`', kind) for name, kind in sorted(exporters.items())]
    parts = []
    for title, kind in sections:
        parts += [f"## {title}", "", _doc(kind), ""]
        if not attrs.fields(kind):
            parts += ["No options.", ""]
            continue
        parts += ["| option | default | allowed | what it does |", "| --- | --- | --- | --- |"]
        for field in _fields(kind):
            default = "" if field.default is None else f"`{literal(field.default, field.type)}`"
            if field.default is attrs.NOTHING:
                default = "needed"
            parts.append(f"| `{field.name}` | {default} | {allowed(field)} | {field.metadata['help']} |")
        parts.append("")
    return "\n".join(parts)


def allowed(field: attrs.Attribute[Any]) -> str:
    """In words, what an option takes."""
    kind = of_option(field.type)
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{literal(word, str)}`" for word in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        (entry, *_) = typing.get_args(kind)
        choices = ", ".join(f"`{literal(word, str)}`" for word in typing.get_args(entry))
        words = f"a list of {choices}" if choices else "a list of strings"
        return f"{words}, {field.metadata['allowed']}" if field.metadata["allowed"] else words
    words = {
        Seconds: 'a duration, such as `"60s"` or `"250ms"`', Bytes: 'a size, such as `"4MiB"`',
        float: "a number", int: "a whole number", bool: "`true` or `false`", str: "a string",
    }.get(kind, "")  # fmt: skip
    rule = field.metadata["allowed"]
    return f"{words}, {rule}" if words and rule else words or rule


def literal(value: Any, kind: Any) -> str:
    """A value as TOML."""
    kind = of_option(kind)
    if kind is Seconds:
        return f'"{format_seconds(value)}"'
    if kind is Bytes:
        return f'"{format_bytes(value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(literal(entry, type(entry)) for entry in value)}]"
    return string(value) if isinstance(value, str) else str(value)


def _options(kind: type, replaced: Mapping[str, str] | None = None) -> list[str]:
    lines = []
    for field in _fields(kind):
        lines += [f"# {' '.join(field.metadata['help'].split())} ({allowed(field).replace('`', '')})"]
        if replaced and field.name in replaced:
            lines.append(f'{field.name} = "{replaced[field.name]}"')
        elif field.default is attrs.NOTHING:
            lines.append(f"{field.name} = {field.metadata['example']}")
        elif field.default is None or field.default == "":
            lines.append(f"# {field.name} = {field.metadata['example']}")
        else:
            lines.append(f"{field.name} = {literal(field.default, field.type)}")
    return lines


def _export_path(name: str, kind: type) -> dict[str, str]:
    """A file for each exporter that writes one, so that a chain of them does not mix on standard output."""
    return {"path": f"{{probe}}.{name}"} if any(field.name == "path" for field in attrs.fields(kind)) else {}


def _fields(kind: type) -> Iterable[attrs.Attribute[Any]]:
    return attrs.fields(attrs.resolve_types(kind))  # type: ignore[no-any-return]


def _doc(kind: type) -> str:
    """What a class says of itself in its first line; its name where it says nothing."""
    return ((kind.__doc__ or "").strip().splitlines() or [kind.__name__])[0]


def _comment(kind: type) -> list[str]:
    return [f"# {_doc(kind)}"]
