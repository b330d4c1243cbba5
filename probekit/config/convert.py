"""One table of a document to an instance of a configuration class, with every problem found."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from ..words import WHOLE, key, printable, show
from .options import Bytes, Seconds, of_option, parse_bytes, parse_seconds


def table(given: Any, kind: type, place: str, spelled: Mapping[str, str], problems: list[str]) -> Any:
    """An instance of an attrs class, or None with problems added.

    Args:
        given: What stands in the document.
        kind: The configuration class.
        place: Its TOML path.
        spelled: As `Document.spelled`.
        problems: Every problem is added.
    """
    if not isinstance(given, dict):
        problems.append(f"{place} = {show(given)}: has to be a table")
        return None
    given = {**given, **_texts(given, kind, place, spelled)}
    try:
        return _converter.structure(given, kind)
    except cattrs.ClassValidationError as error:
        problems.extend(_explain(error, given, place, _options(kind)))
    return None


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """`, did you mean ...?`, or what there is."""
    close = difflib.get_close_matches(name, known, 1, 0.6)
    if close:
        return f", did you mean {close[0]}?"
    return f" (available: {', '.join(known)})" if known else " (none available)"


class _InEntryError(Exception):
    """Something is wrong within a table of a list of tables."""

    def __init__(self, number: int, kind: type, error: cattrs.ClassValidationError) -> None:
        super().__init__(str(error))
        self.number = number
        self.kind = kind
        self.error = error


def _options(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind))


def _texts(given: Mapping[str, Any], kind: type, place: str, spelled: Mapping[str, str]) -> dict[str, str]:
    """Of options that are texts: what was written where the command line gave them bare."""
    return {
        field.name: spelled[where]
        for field in attrs.fields(attrs.resolve_types(kind))
        if field.name in given and (where := f"{place}.{field.name}") in spelled and _is_text(of_option(field.type))
    }


def _is_text(kind: Any) -> bool:
    words = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    return kind is str or any(isinstance(word, str) for word in words)


def _explain(error: cattrs.ClassValidationError, given: Any, place: str, known: tuple[str, ...]) -> list[str]:
    """One line for each thing that cattrs found wrong in a table."""
    lines = []
    attributes, others = error.group_exceptions()
    for problem, note in attributes:
        where = f"{place}.{note.name}"
        if note.name not in given:
            lines.append(f"{where}: is missing")
        elif isinstance(problem, cattrs.ClassValidationError) and attrs.has(note.type):
            lines += _explain(problem, given[note.name], where, _options(note.type))
        elif isinstance(problem, _InEntryError):
            entry = given[note.name][problem.number]
            lines += _explain(problem.error, entry, f"{where}[{problem.number}]", _options(problem.kind))
        else:
            lines.append(f"{where} = {show(given[note.name])}: {problem}")
    for problem in others:
        if isinstance(problem, cattrs.ForbiddenExtraKeysError):
            lines += [
                f"{place}.{key(name)}: unknown key{suggestion(name, known)}" for name in sorted(problem.extra_fields)
            ]
        else:  # what two options together do not allow: the class itself says it
            lines.append(f"{place}: {problem}")
    return lines


def _exactly(kind: type, words: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"has to be {words}")
        return value

    return structure


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("has to be a string")
    if "\0" in value:  # the system's names end there
        raise ValueError(f"has to be a string without {printable(chr(0))}")
    return value


def _whole(value: Any, _: Any) -> int:
    if type(value) is int and value in WHOLE:
        return value
    raise ValueError("has to be a whole number")


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
    if type(value) is int and value >= 0 and value in WHOLE:
        return Bytes(value)
    return parse_bytes(value if isinstance(value, str) else "")


def _literal(value: Any, kind: Any) -> Any:
    allowed = typing.get_args(kind)
    if not any(type(word) is type(value) and word == value for word in allowed):
        words = [word if isinstance(word, str) else show(word) for word in allowed]
        guess = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
        raise ValueError(f"has to be one of {', '.join(words)}{f'; did you mean {guess[0]}?' if guess else ''}")
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
            except cattrs.ClassValidationError as error:
                raise _InEntryError(number, entry, error) from None
            except ValueError as error:
                raise ValueError(f"entry {number + 1}, {show(given)}: {error}") from None
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
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda kind: kind == Seconds, _seconds)
    converter.register_structure_hook_func(lambda kind: kind == Bytes, _bytes)
    converter.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) == typing.Literal, _literal)
    converter.register_structure_hook_func(_is_list, _list(converter))

    def table(kind: type) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(kind)
        hooks = {a.name: override(struct_hook=_checked(converter, a)) for a in attrs.fields(kind)}
        made: Callable[[Any, Any], Any] = make_dict_structure_fn(
            kind,
            converter,
            _cattrs_forbid_extra_keys=True,
            **hooks,  # type: ignore[arg-type]
        )

        def structure(value: Any, wanted: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError("has to be a table")
            return made(value, wanted)

        return structure

    converter.register_structure_hook_factory(attrs.has, table)
    return converter


_converter = _make_converter()
