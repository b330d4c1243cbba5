"""Whether a plan and its C source agree: programs, maps, what sources are read as, parameters, names of tracepoints.

What is refused here would otherwise be found by the kernel without a word about the cause, be read as what it is not,
or be read past the end of a buffer. All of it is an author's mistake, and nothing is loaded before it is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import CompileError
from ..machine import map_types
from ..machine.map_types import DECLARABLE, ONE_SIDED, PADDING, MapType, members
from ..model import LAYOUT, AttachPlan, MapSpec, Object, Source

_PARAMETERS = "parameters"
_DECLARED_PARAMETERS = f"BPF_ARRAY({_PARAMETERS}, struct ..., 1);"
_WHOLE = re.compile(r"=([iu])([1248])")
_BIT_FIELD = re.compile(r"bits\d+")
_RECORD_HEAD = 8  # of a ring buffer: BPF_RINGBUF_HDR_SZ


def check_plan(plan: AttachPlan) -> None:
    """Refuses what no kernel can have.

    Raises:
        CompileError: Such as a tracepoint's name that is that of tracefs, and not the kernel's own.
    """
    for point in plan.points():
        point.check()


def check(plan: AttachPlan, compiled: Object) -> None:
    """Refuses an object that is not what the plan takes it for.

    Raises:
        CompileError: With what does not agree, and what to declare.
    """
    missing = [program for program in plan.programs() if program not in compiled.programs]
    if missing:
        raise CompileError(f"{plan.source} has no function {', '.join(missing)}, which the plan attaches")
    maps = {spec.name: spec for spec in compiled.maps}
    for spec in maps.values():
        _check_map(spec)
    for source in plan.sources:
        if source.name not in maps:
            there = ", ".join(sorted(name for name in maps if not name.endswith(LAYOUT))) or "none"
            raise CompileError(f"{plan.source} has no map {source.name}, which the plan drains (available: {there})")
        _check_source(plan, source, maps[source.name], maps.get(source.name + LAYOUT))
    if plan.parameters:
        _check_parameters(plan, maps.get(_PARAMETERS))


def _check_map(spec: MapSpec) -> None:
    if spec.type not in DECLARABLE:
        raise CompileError(
            f"the map {spec.name} is {map_types.words(spec.type)}, which user space would have to fill or to describe; "
            "probekit does not",
            map_types.instead(spec.type, spec.name),
        )


def _check_source(plan: AttachPlan, source: Source, spec: MapSpec, layout: MapSpec | None) -> None:
    kind = type(source)
    if not kind.fits(spec):
        raise CompileError(*_misfit(kind, spec))
    _refuse_one_sided(spec)
    if kind.described:
        _check_records(plan, spec, layout)
    records = layout if layout is not None and kind.described else spec
    parts = {"value": records.value, **({"key": spec.key} if kind.keyed else {})}
    for part, described in parts.items():
        _refuse_bit_fields(f"the {'record' if kind.described else part} of {spec.name}", described)
    source.check(spec)


def _misfit(kind: type[Source], spec: MapSpec) -> tuple[str, str]:
    """That a source is no such map, and what to do."""
    declared = f"declare {kind.declaration.format(name=spec.name)}"
    if spec.type in kind.types:
        return f"the map {spec.name} cannot be mapped, which a source {kind.__name__} is", declared
    either = " or ".join(map_types.words(each) for each in sorted(kind.types))
    others = " or ".join(f'{other.__name__}("{spec.name}")' for other in kinds_of(spec))
    return (
        f"the map {spec.name} is {map_types.words(spec.type)}; a source {kind.__name__} has to be {either}",
        f"{declared}{f' or drain it as {others}' if others else ''}",
    )


def kinds_of(spec: MapSpec) -> list[type[Source]]:
    """The kinds of source that may be a map: the core's, and those of packages that are in use."""
    found, left = [], [Source]
    while left:
        kinds = left.pop().__subclasses__()
        left += kinds
        # of a class with slots attrs makes another one; the first, without a constructor of its own, may still be there
        found += [kind for kind in kinds if kind.__init__ is not Source.__init__ and kind.fits(spec)]
    return sorted(set(found), key=lambda kind: kind.__name__)


def _refuse_one_sided(spec: MapSpec) -> None:
    if spec.flags & ONE_SIDED:
        raise CompileError(
            f"the map {spec.name} is declared with BPF_F_RDONLY or BPF_F_WRONLY, so that user space may not use it",
            "those flags are about user space; BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG are about programs",
        )


def _check_records(plan: AttachPlan, spec: MapSpec, layout: MapSpec | None) -> None:
    if layout is None:
        raise CompileError(
            f"{plan.source} does not say what the records of the ring buffer {spec.name} are",
            f"add LAYOUT({spec.name}, struct ...) of programs.h after it",
        )
    needed = _RECORD_HEAD + (layout.value_size + 7) // 8 * 8
    if needed > spec.max_entries:
        raise CompileError(
            f"the ring buffer {spec.name} has {spec.max_entries} bytes, and one record takes {needed}: none would ever "
            "fit",
            f"declare BPF_RINGBUF_OUTPUT({spec.name}, PAGES) with more pages, a power of two, or a smaller record",
        )


def _check_parameters(plan: AttachPlan, spec: MapSpec | None) -> None:
    given = ", ".join(plan.parameters)
    if spec is None:
        raise CompileError(
            f"{plan.source} has no map {_PARAMETERS} for the plan's parameters {given}",
            f"declare {_DECLARED_PARAMETERS} with a field for each",
        )
    if spec.type != MapType.ARRAY or spec.max_entries != 1 or not members(spec.value):
        raise CompileError(
            f"the map {_PARAMETERS} is {map_types.words(spec.type)} of {spec.max_entries} entries; it has to be an "
            "array of one entry, a struct",
            f"declare {_DECLARED_PARAMETERS}",
        )
    _refuse_one_sided(spec)
    _refuse_bit_fields(f"the value of {_PARAMETERS}", spec.value)
    fields = {name: form for name, form in zip(spec.value["names"], spec.value["formats"], strict=True)
              if not _is_padding(name, form)}  # fmt: skip
    for name in plan.parameters.keys() - fields.keys():
        raise CompileError(
            f"the map {_PARAMETERS} has no field {name}, which the plan gives (available: {', '.join(fields)})",
            "give the field and the parameter one name",
        )
    for name, form in fields.items():
        whole = _WHOLE.fullmatch(form) if isinstance(form, str) else None
        if whole is None:
            raise CompileError(
                f"the field {name} of {_PARAMETERS} is no whole number", "declare it u8, u16, u32 or u64"
            )
        if name not in plan.parameters:
            raise CompileError(
                f"the map {_PARAMETERS} has a field {name}, which the plan does not give (available: {given})",
                "give the plan's parameters a value for each field",
            )
        bits = int(whole[2]) * 8
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if whole[1] == "i" else (0, (1 << bits) - 1)
        if not low <= plan.parameters[name] <= high:
            raise CompileError(
                f"the parameter {name} = {plan.parameters[name]} does not fit its field of {bits} bits "
                f"({low} to {high})",
                "declare a wider field, or check the option's value in the probe's configuration",
            )


def _is_padding(name: str, form: Any) -> bool:
    """What bcc puts where the compiler leaves a gap."""
    return name.startswith(PADDING) and isinstance(form, str) and form.startswith("S")


def _refuse_bit_fields(what: str, described: Any) -> None:
    for field in _bit_fields(described, ""):
        raise CompileError(
            f"{what} has a bit field, {field}, which user space cannot take apart",
            "declare a whole number, u8 or wider, or put the bits into one with shifts",
        )


def _bit_fields(described: Any, name: str) -> Iterator[str]:
    if isinstance(described, dict):
        for inner, form in zip(described["names"], described["formats"], strict=True):
            yield from _bit_fields(form, f"{name}.{inner}" if name else inner)
    elif isinstance(described, (list, tuple)):
        yield from _bit_fields(described[0], name)
    elif _BIT_FIELD.fullmatch(described):
        yield name
