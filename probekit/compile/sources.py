"""The files that an object is made from."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve

from ..model import AttachPlan, Object
from ..paths import bpf_folder

_INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)


def folders(plan: AttachPlan) -> list[Path]:
    """Where a plan's includes are looked for, the first one first."""
    return [plan.source.parent, *plan.include, bpf_folder() / "include"]


def files(plan: AttachPlan) -> list[Path]:
    """The source, and all that it includes of the author's files and of ours; no kernel headers."""
    found = [plan.source]
    for path in found:  # grows meanwhile
        for name in _INCLUDED.findall(path.read_text(encoding="utf-8")):
            places = (folder / name for folder in (path.parent, *folders(plan)))
            included = next((place for place in places if place.is_file()), None)
            if included is not None and included not in found:
                found.append(included)
    return found


def names(plan: AttachPlan) -> dict[str, str]:
    """For the path of each file the name that it has wherever the plan's folders are."""
    return {
        str(path): next((str(path.relative_to(folder)) for folder in folders(plan) if path.is_relative_to(folder)), "")
        or str(path)
        for path in files(plan)
    }


def located(compiled: Object, plan: AttachPlan) -> Object:
    """An object, which may have been made elsewhere, with the paths that its sources have here."""
    paths = {name: path for path, name in names(plan).items()}
    return evolve(compiled, files=tuple(paths.get(name, name) for name in compiled.files))
