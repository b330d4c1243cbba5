"""Options: attrs fields that know what they are for, what they allow, and how TOML spells them.

A configuration class is an ordinary attrs class whose fields are made by `option`. From it come the parsing, the error
messages, `probekit config init` and the configuration reference; nothing about an option is written twice.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from typing import Any, NewType

import attrs

from ..words import WHOLE

Seconds = NewType("Seconds", float)
"""A duration in seconds, in TOML a string with its unit: "60s", "250ms", "1m30s"."""

Bytes = NewType("Bytes", int)
"""A size in bytes, in TOML a whole number or a string with its unit: "64KiB", "4MiB"."""

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LONGEST = 100  # characters of a duration or a size: what is longer is neither, and Python counts on
_LATEST = 100_000 * 86400.0
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+)\s*([KMG]iB|B|)")


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002  (the word that argparse and click use)
    allowed: str = "",
    check: Callable[[Any], bool] | None = None,
    example: str = "",
) -> Any:
    """A field of a configuration class.

    Args:
        default: Its default; without one the option has to be given.
        help: One line: what it does.
        allowed: In words, which values are allowed, where the type does not say it.
        check: Whether a value is allowed.
        example: TOML to show where there is no default to show.
    """

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if check is not None and value is not None and not check(value):
            raise ValueError(f"has to be {allowed}")

    return attrs.field(
        default=default, validator=validate, metadata={"help": help, "allowed": allowed, "example": example}
    )


def fault(kind: object) -> str:
    """Why something is no configuration class; empty where it is one."""
    if not isinstance(kind, type) or not attrs.has(kind):
        return f"{kind!r} is not an attrs class"
    for field in attrs.fields(kind):
        if "help" not in field.metadata:
            return f"{kind.__name__}.{field.name} is not made by probekit.option()"
    try:
        attrs.resolve_types(kind)
    except Exception as error:  # an annotation may be any expression
        return f"{kind.__name__}: {type(error).__name__}: {error}"
    return ""


def of_option(kind: Any) -> Any:
    """The type of what may be left out: `X` of `X | None`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not types.NoneType)
    return kind


def parse_seconds(text: str) -> Seconds:
    """Seconds of "1m30s".

    Raises:
        ValueError: The text is no duration.
    """
    parts = _DURATION.findall(text[:_LONGEST])
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError('has to be a duration with its unit, such as "60s", "250ms" or "1m30s"')
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LATEST:
        raise ValueError(f'has to be a duration of at most "{_LATEST / _SECONDS["d"]:.0f}d"')
    return Seconds(seconds)


def format_seconds(seconds: float) -> str:
    """The shortest TOML spelling of a duration: "60s", "250ms"."""
    for unit in ("s", "ms", "us", "ns"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9 * count:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def parse_bytes(text: str) -> Bytes:
    """Bytes of "4MiB".

    Raises:
        ValueError: The text is no size.
    """
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    size = int(match[1]) * _BYTES[match[2]] if match is not None else None
    if size is None or size not in WHOLE:
        raise ValueError('has to be a size such as 65536, "64KiB" or "4MiB"')
    return Bytes(size)


def format_bytes(size: int) -> str:
    """The shortest TOML spelling of a size: "4MiB"."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)
