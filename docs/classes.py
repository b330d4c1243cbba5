"""What the public classes say of themselves: every attribute and method, with its type and its meaning."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import attrs
from attrs import frozen


@frozen
class Member:
    """An attribute or a method of a class.

    Attributes:
        name: As it is written; a method with its parameters.
        type: Of an attribute, or of what a method returns; as the source has it.
        meaning: One paragraph; empty where nothing says it.
    """

    name: str
    type: str
    meaning: str


def public(modules: list[Any]) -> Iterator[tuple[Any, type]]:
    """Every public class, with the module that exports it."""
    for module in modules:
        for name in module.__all__:
            value = getattr(module, name, None)
            if inspect.isclass(value):
                yield module, value


def section(kind: type) -> list[str]:
    """A class as Markdown: what it is for, and a table of its members."""
    members = list(members_of(kind))
    lines = [f"### `{kind.__name__}`", "", _about(kind), ""]
    for name, words in _listed(kind, "Args").items():
        if name not in _attributes(kind):
            lines += [f"Argument `{name}`: {words}", ""]
    if members:
        lines += ["| name | type | meaning |", "| --- | --- | --- |"]
        lines += [
            f"| `{_cell(m.name)}` | {f'`{_cell(m.type)}`' if m.type else ''} | {_cell(m.meaning)} |" for m in members
        ]
        lines.append("")
    return lines


def undocumented(kind: type) -> list[str]:
    """Members that no docstring tells of, and attributes that a docstring tells of and the class has not."""
    members = {member.name.partition("(")[0]: member for member in members_of(kind)}
    silent = [name for name, member in members.items() if not member.meaning]
    return silent + [name for name in _described(kind) if name not in members]


def members_of(kind: type) -> Iterator[Member]:
    """The attributes of a class and then its methods, in the order of the source."""
    if issubclass(kind, enum.Enum):
        remarks = dict(re.findall(r'^    (\w+) = "[^"]*"(?:  # (.*))?$', inspect.getsource(kind), re.MULTILINE))
        yield from (Member(member.name, f'"{member.value}"', remarks[member.name]) for member in kind)
        return
    described = _described(kind)
    yield from (Member(name, type_, described.get(name, "")) for name, type_ in _attributes(kind).items())
    for name, value in vars(kind).items():
        if name.startswith("_") or name in _attributes(kind):
            continue
        if isinstance(value, property):
            yield Member(name, _returned(value.fget), _first_paragraph(value))
        elif inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod)):
            function = inspect.unwrap(getattr(value, "__func__", value))
            parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
            yield Member(f"{name}({', '.join(parameters)})", _returned(function), _first_paragraph(value))


def _attributes(kind: type) -> dict[str, str]:
    """Name and type of what instances have: attrs' fields, else what the class declares and `__init__` sets."""
    if attrs.has(kind):
        return {field.name: _type(field.type) for field in attrs.fields(kind)}
    annotations = inspect.get_annotations(kind)
    declared = {name: re.fullmatch(r"ClassVar\[(.*)\]", str(text)) for name, text in annotations.items()}
    found = {name: match[1] for name, match in declared.items() if match is not None}
    owner = _owner(kind)
    if owner is None:
        return found
    function: Any = ast.parse(textwrap.dedent(inspect.getsource(vars(owner)["__init__"]))).body[0]
    given = {a.arg: ast.unparse(a.annotation) for a in function.args.args if a.annotation is not None}
    for node in function.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Attribute) and not target.attr.startswith("_"):
            written = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            found[target.attr] = written or given.get(ast.unparse(node.value), "")
    return found


def _described(kind: type) -> dict[str, str]:
    """What docstrings say of the attributes, by name; those that are arguments may be told of there."""
    owner = _owner(kind)
    given = _listed(owner, "Args") if owner is not None and not attrs.has(kind) else {}
    return {name: words for name, words in given.items() if name in _attributes(kind)} | _listed(kind, "Attributes")


def _owner(kind: type) -> type | None:
    """The class of this project whose `__init__` makes an instance."""
    return next((k for k in kind.__mro__ if "__init__" in vars(k) and k.__module__.startswith("probekit")), None)


def _listed(kind: type, title: str) -> dict[str, str]:
    """What a section of the docstring says, by name."""
    _, _, after = (inspect.getdoc(kind) or "").partition(f"\n{title}:\n")
    block = re.split(r"\n(?=\S)", after)[0]
    return {
        name: " ".join(words.split())
        for name, words in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", block, re.MULTILINE)
    }


def _about(kind: type) -> str:
    """The docstring before its sections."""
    return re.split(r"\n(?:Attributes|Args|Raises):\n", inspect.getdoc(kind) or "")[0].strip()


def _first_paragraph(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def _returned(function: Any) -> str:
    return _type(inspect.signature(function).return_annotation)


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
