"""The files that an object is made from, and the one text that bcc is given of them.

bcc rewrites what is done with maps in the text that it is given, and in none of the headers that this includes. So
headers whose programs use maps have a name of their own, NAME.bpf.h, and are put in where they are included.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve, frozen

from ..errors import CompileError
from ..machine.paths import bpf_folder
from ..model import AttachPlan, Object

_INCLUDED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]+)[">]', re.MULTILINE)
_COMPUTED = re.compile(
    r"""^[ \t]*(?:#|%:)[ \t]*(?:include(?![ \t]*["<])|include_next|import|embed)[^\n]*""", re.MULTILINE
)
_REWRITTEN = ".bpf.h"


@frozen
class Text:
    """A source, with the headers in it that bcc rewrites.

    Attributes:
        source: The C file.
        written: The text.
        places: Of each line the file and the line, from 1, where it was written.
    """

    source: Path
    written: str
    places: tuple[tuple[str, int], ...]

    def place(self, line: int) -> tuple[str, int]:
        """Where a line of the text, from 1, was written."""
        return self.places[line - 1] if 0 < line <= len(self.places) else (str(self.source), line)


def folders(plan: AttachPlan) -> list[Path]:
    """Where a plan's includes are looked for, the first one first."""
    return [plan.source.parent, *plan.include, bpf_folder() / "include"]


def files(plan: AttachPlan) -> list[Path]:
    """The source, and all that it includes of the author's files and of ours; no kernel headers.

    Raises:
        CompileError: One of them cannot be read, includes what only the preprocessor knows, or includes a header with
            maps where bcc does not see it.
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
        for match in _INCLUDED.finditer(text):
            included = _meant(match, path, plan)
            if included is None:
                continue
            if _is_rewritten(included) and path != plan.source and not _is_rewritten(path):
                raise CompileError(
                    f"{path} includes {included.name}: bcc looks for maps in the source and in {_REWRITTEN} files only",
                    f"include it from the source, or name {path.name} NAME{_REWRITTEN}",
                )
            if included not in found:
                found.append(included)
    return found


def text(plan: AttachPlan) -> Text:
    """What bcc is given: the source with its NAME.bpf.h headers in it, each at most once, as with #pragma once."""
    lines: list[str] = []
    places: list[tuple[str, int]] = []
    guards = {path: f"PROBEKIT_HAS_{number}" for number, path in enumerate(files(plan)) if _is_rewritten(path)}

    def put(path: Path, within: tuple[Path, ...]) -> None:
        for number, line in enumerate(_read(path).split("\n"), 1):  # as clang counts
            match = _INCLUDED.match(line)
            included = _meant(match, path, plan) if match else None
            opening = path in guards and line.strip() == "#pragma once"
            if included not in guards:
                lines.append("" if opening else line)
                places.append((str(path), number))
                continue
            assert included is not None
            guard = guards[included]
            before = [f"#ifndef {guard}", f"#define {guard}"]
            lines.extend(before)
            places.extend([(str(path), number)] * len(before))
            if included not in within:
                put(included, (*within, included))
            lines.append("#endif")
            places.append((str(path), number))

    put(plan.source, (plan.source,))
    return Text(plan.source, "\n".join(lines) + "\n", tuple(places))


def _is_rewritten(path: Path) -> bool:
    return path.name.endswith(_REWRITTEN)


def _meant(match: re.Match[str], path: Path, plan: AttachPlan) -> Path | None:
    """The file that a line of another one includes; None where it is none of the author's or ours."""
    mark, name = match.groups()
    near = [path.parent] if mark == '"' else []
    places = (folder / name for folder in (*near, *folders(plan)))
    return next((place for place in places if place.is_file()), None)


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
