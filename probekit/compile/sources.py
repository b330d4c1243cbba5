"""The files that an object is made from."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve

from ..errors import CompileError
from ..machine.paths import bpf_folder
from ..model import AttachPlan, Object

_INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]+)[">]', re.MULTILINE)
_COMPUTED = re.compile(
    r"""^[ \t]*(?:#|%:)[ \t]*(?:include(?![ \t]*["<])|include_next|import|embed)[^\n]*""", re.MULTILINE
)


def folders(plan: AttachPlan) -> list[Path]:
    """Where a plan's includes are looked for, the first one first."""
    return [plan.source.parent, *plan.include, bpf_folder() / "include"]


def files(plan: AttachPlan) -> list[Path]:
    """The source, and all that it includes of the author's files and of ours; no kernel headers.

    Raises:
        CompileError: One of them cannot be read, or includes what only the preprocessor knows.
    """
    found = [plan.source]
    for path in found:  # grows meanwhile
        text = _read(path)
        computed = _COMPUTED.search(text)
        if computed:
            raise CompileError(
                f"{path}: `{computed[0].strip()}`: what it includes cannot be known without compiling it",
                'name the file: #include "FILE"; which of two it is may be chosen with #if around them',
            )
        for mark, name in _INCLUDED.findall(text):
            near = [path.parent] if mark == '"' else []
            places = (folder / name for folder in (*near, *folders(plan)))
            included = next((place for place in places if place.is_file()), None)
            if included is not None and included not in found:
                found.append(included)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CompileError(
            f"{path} cannot be read: {error.strerror}", "the plan's source is the path of a C file"
        ) from None
    except UnicodeDecodeError:
        raise CompileError(f"{path} is not written in UTF-8", "save it as UTF-8") from None


def portable(plan: AttachPlan, file: str) -> str:
    """The name that a file has wherever the plan's folders are; its path where it is in none of them."""
    path = Path(file)
    return next((str(path.relative_to(folder)) for folder in folders(plan) if path.is_relative_to(folder)), file)


def located(compiled: Object, plan: AttachPlan) -> Object:
    """An object, which may have been made elsewhere, with the paths that its sources have here."""
    here = [[folder / name for folder in folders(plan) if (folder / name).is_file()] for name in compiled.files]
    paths = (str(found[0]) if found else name for found, name in zip(here, compiled.files, strict=True))
    return evolve(compiled, files=tuple(paths))
