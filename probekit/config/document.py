"""What a user wrote, in a file and on the command line, as one TOML document. Nothing of it is looked up yet."""

from __future__ import annotations

import copy
import errno
import math
import os
import re
import select
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli
from attrs import field, frozen

from ..errors import ConfigError, InputError
from ..words import WHOLE, key, printable, show

LARGEST = 1 << 20
"""Bytes of a configuration file: a device has no end."""

DEEPEST = 20
"""Tables in tables: no option is as deep."""

PATIENCE = 10.0
"""Seconds that a pipe may take to be written: one without a writer has no end either."""

_EXAMPLE = "has to be PATH=VALUE, such as probe.latency.sample=0.1"
_STEP = re.compile(
    r"""[ \t]*(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<quoted>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'))"""
    r"""(?P<indices>(?:\[[0-9]{1,9}\])*)[ \t]*(?P<end>[.=])"""
)  # fmt: skip


@frozen
class Document:
    """A TOML document.

    Attributes:
        tables: Its contents.
        origin: The file's name, for messages; empty without one.
        spelled: Of values that the command line gave bare and that TOML takes for no string, such as 5 or true: what
            was written, by TOML path. An option that is a text wants that.
    """

    tables: Mapping[str, Any]
    origin: str = ""
    spelled: Mapping[str, str] = field(factory=dict)


def read(path: Path) -> Document:
    """The TOML document of a file.

    Raises:
        InputError: The file cannot be read.
        ConfigError: It is not TOML.
    """
    origin = printable(str(path))
    try:
        text = _text(_contents(path), origin)
    except FileNotFoundError:
        raise InputError(f"{origin}: there is no such file", "`probekit config init` writes one") from None
    except OSError as error:
        raise InputError(f"{origin}: cannot be read: {error.strerror}") from None
    except ValueError:  # NUL in its name
        raise InputError(f"{origin}: no file can have that name") from None
    try:
        tables = parse(text)
    except ValueError as error:
        raise ConfigError([printable(str(error))], origin) from None
    return Document(tables, origin)


def parse(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: It is not TOML, or has what no option can be.
    """
    try:
        tables = tomli.loads(text, parse_float=_float)
    except tomli.TOMLDecodeError as error:
        raise ValueError(f"not valid TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} tables or lists") from None
    except ValueError:  # Python's limit of digits, or a float beyond the largest
        raise ValueError("a number is too large: TOML's have 64 bits") from None
    _check(tables)
    return tables


def overrides(
    document: Document, run: Mapping[str, str | None], exports: Iterable[str], settings: Iterable[str]
) -> Document:
    """A document with what the command line says on top of it.

    Args:
        document: The file's, or an empty one.
        run: Options of `[run]`; those that are None were not given.
        exports: KIND or KIND:PATH, each an exporter more.
        settings: PATH=VALUE, each an override.

    Raises:
        InputError: One of them cannot be carried out. What the file has in the wrong place is left to `structure`.
    """
    tables = copy.deepcopy(dict(document.tables))
    spelled = dict(document.spelled)
    given = {name: value for name, value in run.items() if value is not None}
    if given and isinstance(tables.setdefault("run", {}), dict):
        tables["run"].update(given)
    for assignment in settings:
        assign(tables, spelled, assignment)
    chain = tables.setdefault("export", [])
    if isinstance(chain, list):
        chain += [_exporter(text) for text in exports]
        if not chain:
            chain.append({"kind": "stdout"})
    return Document(tables, document.origin, spelled)


def assign(tables: dict[str, Any], spelled: dict[str, str], assignment: str) -> None:
    """Carries out `probe.latency.sample=0.1` on a document; the value is TOML, a bare word a string.

    A path is written as in messages: `export[0].path`, `probe."odd name".mode`.

    Raises:
        InputError: It is no assignment, or the path leads through something that is no table.
    """
    shown = f"--set {printable(assignment)}"
    steps, text = _path(assignment, shown)
    *before, last = steps
    if isinstance(last, int):
        raise InputError(f"{shown}: {_EXAMPLE}; a list is set as a whole, or an option of one of its tables")
    table: Any = tables
    place = ""
    for step in before:
        if isinstance(step, int):
            if not isinstance(table, list) or step >= len(table):
                there = f"has {len(table)} entries" if isinstance(table, list) else "is not a list"
                raise InputError(f"{shown}: there is no {place}[{step}]: {place} {there}, and they count from 0")
            table, place = table[step], f"{place}[{step}]"
            continue
        _need_table(table, place, shown)
        table, place = table.setdefault(step, {}), _joined(place, step)
    _need_table(table, place, shown)
    place = _joined(place, last)
    table[last] = value = _value(text, shown)
    for old in [old for old in spelled if old == place or old.startswith((f"{place}.", f"{place}["))]:
        del spelled[old]
    if not isinstance(value, (str, list, dict)):
        spelled[place] = text


def _need_table(table: Any, place: str, shown: str) -> None:
    if isinstance(table, list):
        raise InputError(f"{shown}: {place} is a list; one of its entries is {place}[0]")
    if not isinstance(table, dict):
        raise InputError(f"{shown}: {place} is not a table")


def _joined(place: str, name: str) -> str:
    return f"{place}.{key(name)}" if place else key(name)


def _path(assignment: str, shown: str) -> tuple[list[str | int], str]:
    """The steps of an assignment's path, names and indices, and the text of its value."""
    steps: list[str | int] = []
    at = 0
    while (step := _STEP.match(assignment, at)) is not None:
        try:
            steps.append(step["bare"] or tomli.loads(f"name = {step['quoted']}")["name"])
        except tomli.TOMLDecodeError:
            break
        steps += [int(index) for index in re.findall("[0-9]+", step["indices"])]
        if len(steps) > DEEPEST:
            raise InputError(f"{shown}: {_EXAMPLE}; no option is as deep")
        at = step.end()
        if step["end"] == "=":
            return steps, assignment[at:].strip()
    raise InputError(f"{shown}: {_EXAMPLE}", "a name with other than letters, digits, _ and - stands in quotes")


def _value(text: str, shown: str) -> Any:
    try:
        made = parse(f"value = {text}")
        if set(made) == {"value"}:
            return made["value"]
    except ValueError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise InputError(f"{shown}: {printable(text)} is {error}", "strings in it stand in quotes") from None
    return text


def _exporter(text: str) -> dict[str, str]:
    kind, colon, path = text.partition(":")
    if not kind or (colon and not path):
        raise InputError(f"--export {printable(text)}: has to be KIND or KIND:PATH, such as json:latency.json")
    return {"kind": kind, "path": path} if colon else {"kind": kind}


def _contents(path: Path) -> bytes:
    """A file's bytes; of a pipe, what is written to it meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        end = time.monotonic() + PATIENCE
        contents = b""
        while poll.poll(max(0.0, 1000 * (end - time.monotonic()))):
            piece = file.read(LARGEST)
            contents += piece or b""
            if len(contents) > LARGEST:
                raise InputError(f"{printable(str(path))}: is larger than {LARGEST >> 20} MiB: no configuration is")
            if piece == b"":
                return contents
    raise InputError(f"{printable(str(path))}: nobody wrote to it, or not all, for {PATIENCE:g} s")


def _text(contents: bytes, origin: str) -> str:
    if contents.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{origin}: is UTF-16; TOML is UTF-8", "save it as UTF-8")
    try:
        return contents.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{origin}: is not UTF-8: byte {contents[error.start]:#04x} in line {line}", "save it as UTF-8"
        ) from None


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number) and "inf" not in text:
        raise ValueError(text)
    return number


def _check(tables: dict[str, Any]) -> None:
    """Refuses what Python reads and no TOML has: whole numbers beyond 64 bits. And what is deeper than any option."""
    entries: list[tuple[str, int, Any]] = [("", 0, tables)]
    while entries:
        place, depth, value = entries.pop()
        if isinstance(value, int) and value not in WHOLE:
            raise ValueError(f"{place} = {show(value)}: a whole number is too large: TOML's have 64 bits")
        if depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} tables or lists")
        entries += [(where, depth + 1, entry) for where, entry in _entries(place, value)]


def _entries(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield _joined(place, name), entry
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            yield f"{place}[{number}]", entry
