"""Objects as JSON and back, with every part looked at: what comes from a file or a process may be anything.

Whoever can write our files or answer in the compiler's place is not kept out by this; what is kept out is that nonsense
gets as far as the loader, where it would be an internal error or an overrun buffer.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs

from ..machine.map_types import KEYLESS, MapType
from ..model import LAYOUT, MapSpec, Object

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_FORMAT = re.compile(r"=[iu][1248]|=f[48]|\?|S[1-9]\d{0,8}|bits[1-9]\d?")
_INSTRUCTION = 8
_LINE = 12
_LOAD_IMM64, _PSEUDO_MAP_FD = 0x18, 1
_MOST = 1 << 30
"""Bytes of anything: what the kernel takes at most is less."""
_DEEPEST = 32
_U32, _I32 = 1 << 32, 1 << 31


def to_json(compiled: Object) -> dict[str, Any]:
    """An object as JSON values."""

    def plain(_: Any, __: Any, value: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    return attrs.asdict(compiled, value_serializer=plain)


def from_json(document: Any) -> Object:
    """The object of JSON values.

    Raises:
        ValueError: It is none: with what is wrong.
    """
    try:
        return _object(document)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _object(document: Any) -> Object:
    given = _table(document, "object", {field.name for field in attrs.fields(Object)})
    maps = tuple(_map(entry) for entry in _list(given["maps"], "maps"))
    names = [spec.name for spec in maps]
    if len(set(names)) != len(names):
        _refuse("two maps of one name")
    live = {spec.placeholder for spec in maps if not spec.name.endswith(LAYOUT)}
    programs = {
        _name(name, "program"): _instructions(code, name, live) for name, code in _pairs(given["programs"], "programs")
    }
    files = tuple(_text(entry, "file") for entry in _list(given["files"], "files"))
    return Object(
        key=_text(given["key"], "key"),
        compiler=_text(given["compiler"], "compiler"),
        maps=maps,
        programs=programs,
        targets={_text(name, "target"): _number(given_id, f"id of {name}", 1, _I32 - 1)
                 for name, given_id in _pairs(given["targets"], "targets")},
        files=files,
        lines={_name(name, "lines"): _lines(data, name, len(files)) for name, data in _pairs(given["lines"], "lines")},
    )  # fmt: skip


def _map(entry: Any) -> MapSpec:
    given = _table(entry, "map", {field.name for field in attrs.fields(MapSpec)})
    name = _name(given["name"], "map")
    kind = _number(given["type"], f"type of {name}", 1, 255)
    spec = MapSpec(
        name=name,
        type=kind,
        key_size=_number(given["key_size"], f"key_size of {name}", 0, _MOST),
        value_size=_number(given["value_size"], f"value_size of {name}", 0, _MOST),
        max_entries=_number(given["max_entries"], f"max_entries of {name}", 0, _U32 - 1),
        flags=_number(given["flags"], f"flags of {name}", 0, _U32 - 1),
        placeholder=_number(given["placeholder"], f"placeholder of {name}", -_I32, _I32 - 1),
        key=given["key"],
        value=given["value"],
    )
    if kind == MapType.RINGBUF and spec.max_entries > _MOST:
        _refuse(f"{name} is larger than {_MOST >> 20} MiB")
    key, value = (
        layout_size(layout, f"{name}'s {part}") for part, layout in (("key", spec.key), ("value", spec.value))
    )
    if kind not in KEYLESS and (key, value) != (spec.key_size, spec.value_size):
        _refuse(
            f"the layouts of {name} take {key} and {value} bytes, the map has {spec.key_size} and {spec.value_size}"
        )
    return spec


def layout_size(layout: Any, what: str, depth: int = 0) -> int:
    """How many bytes a layout describes.

    Raises:
        ValueError: It is no layout that `probekit.drain.layout` takes: with what is wrong.
    """
    if depth > _DEEPEST:
        _refuse(f"{what} is nested too deep")
    if isinstance(layout, str):
        return _format_size(layout, what)
    if isinstance(layout, (list, tuple)):
        inner, shape = layout if len(layout) == 2 else (None, None)
        (length,) = (
            _list(shape, f"shape in {what}") if isinstance(shape, (list, tuple)) and len(shape) == 1 else (None,)
        )
        size = layout_size(inner, what, depth + 1)
        if not size:
            _refuse(f"{what} is an array of nothing")
        return size * _number(length, f"length in {what}", 0, _MOST // size)
    given = _table(layout, what, {"names", "formats", "offsets", "itemsize"})
    names, formats, offsets = (_list(given[part], f"{part} of {what}") for part in ("names", "formats", "offsets"))
    if not len(names) == len(formats) == len(offsets) or len({_name(n, f"field of {what}") for n in names}) != len(
        names
    ):
        _refuse(f"the fields of {what} do not agree")
    itemsize = _number(given["itemsize"], f"itemsize of {what}", 0, _MOST)
    for name, form, offset in zip(names, formats, offsets, strict=True):
        end = _number(offset, f"offset of {name}", 0, _MOST) + layout_size(form, f"{what}.{name}", depth + 1)
        if end > itemsize:
            _refuse(f"{what}.{name} reaches beyond the end")
    return itemsize


def _format_size(form: str, what: str) -> int:
    if not _FORMAT.fullmatch(form):
        _refuse(f"{what} has the unknown format {form[:20]!r}")
    if form.startswith("bits"):
        return 0
    return 1 if form == "?" else int(form.lstrip("=iufS"))


def _instructions(data: Any, name: str, placeholders: set[int]) -> bytes:
    code = _bytes(data, f"program {name}")
    if not code or len(code) % _INSTRUCTION:
        _refuse(f"program {name} is {len(code)} bytes long")
    for at in range(0, len(code), _INSTRUCTION):
        if code[at] == _LOAD_IMM64 and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
            (placeholder,) = struct.unpack_from("=i", code, at + 4)
            if placeholder not in placeholders:
                _refuse(f"program {name} uses a map that there is not")
    return code


def _lines(data: Any, name: str, files: int) -> bytes:
    lines = _bytes(data, f"lines of {name}")
    if len(lines) % _LINE or any(file >= files for _, file, _ in struct.iter_unpack("=III", lines)):
        _refuse(f"the lines of {name} refer to nothing")
    return lines


def _table(value: Any, what: str, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        _refuse(f"{what} has not the fields {', '.join(sorted(names))}")
    return value


def _pairs(value: Any, what: str) -> list[tuple[Any, Any]]:
    return list(_of(dict, value, what).items())


def _list(value: Any, what: str) -> list[Any]:
    return list(value) if isinstance(value, tuple) else _of(list, value, what)


def _name(value: Any, what: str) -> str:
    if not _NAME.fullmatch(_text(value, what)):
        _refuse(f"{what} has the impossible name {value[:40]!r}")
    return str(value)


def _text(value: Any, what: str) -> str:
    text: str = _of(str, value, what)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        _refuse(f"{what} is no text")
    return text


def _number(value: Any, what: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        _refuse(f"{what} is no number from {low} to {high}")
    return int(value)


def _bytes(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(_of(str, value, what), validate=True)
    except (binascii.Error, ValueError):
        _refuse(f"{what} is no base64")


def _of(kind: Callable[..., Any], value: Any, what: str) -> Any:
    if type(value) is not kind:
        _refuse(f"{what} is {type(value).__name__}, and not {getattr(kind, '__name__', kind)}")
    return value


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)
