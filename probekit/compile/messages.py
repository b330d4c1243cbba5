"""clang's messages as an author reads them: the place in the author's own file, the line itself, and what to do.

bcc compiles a source twice: as it was written, and after its own rewriting, which inserts lines. clang's optimiser and
the line numbers in the object are about the second text; `origins` leads them back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from attrs import evolve, frozen

from ..machine.paths import source_line
from .sources import Text

_BEGIN = '#line 1 "{}"'
_END = "#include <bcc/footer.h>"
_INSERTED = re.compile(r"__attribute__\(\((always_inline|section\(\"\.bpf\.fn\.\w+\"\))\)\)")
_PLACE = re.compile(r"(?:error: )?(?P<file>[^\s:][^:]*):(?P<line>\d+):(?P<column>\d+): (?P<text>.+)")
_KIND = re.compile(r"(?:(?P<kind>fatal error|error|warning|note|remark): )?(?P<words>.*)")
_MOST = 5

_MAP = re.compile(r"could not open bpf map: (?P<name>\w+), error: (?P<reason>.+)")
_RING_PAGES = """\
    the number of pages of a ring buffer has to be a power of two, at least 1, and match the kernel's page size"""
_MAP_SIZES = """\
    a map needs at least 1 entry, a hash key may have up to 512 bytes and a value of a per-CPU map up to 32 KiB; this
    kernel has to support the map's type (`bpftool feature probe` lists the types)"""
_NO_MEMORY = "give the map fewer entries"
_NOT_PERMITTED = """\
    run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN in the initial user namespace; before 5.11 maps count
    against `ulimit -l`, too"""

_CLASH = r"redefinition of (?:enumerator )?'(?P<name>\w+)'|typedef redefinition|conflicting types for '(?P<same>\w+)'"
_REMEDIES = {
    _CLASH: """\
        the kernel already uses that name, and all its types come from its BTF: choose another one, such as
        {stem}_{name}""",
    r"stack limit of 512 bytes": """\
        a program has 512 bytes of stack: keep large values in a map, BPF_PERCPU_ARRAY(scratch, struct {stem}_big, 1),
        or write them straight into a reserved record of a ring buffer""",
    r"no member named '(?P<name>\w+)' in '(?P<kind>[^']+)'": """\
        if this kernel's {kind} has no such member (`bpftool btf dump file /sys/kernel/btf/vmlinux format c` prints it),
        let the plan ask kernel.has_name("{name}") and pass the answer to the source as a macro""",
    r"use of undeclared identifier '(?P<name>[A-Z][A-Z0-9_]*)'": """\
        BTF has the kernel's types and enums but no macros: #define {name} in your source, or add it to the plan's
        defines""",
    r"(?:implicit declaration of|call to undeclared) function '(?P<name>\w+)'": """\
        neither bcc nor the kernel has a helper {name}; define a function of your own before you call it""",
    r"file not found": """\
        no kernel headers are used: the kernel's types need no include; put your own headers beside the C file or list
        their folder in the plan's include""",
    r"cannot call non-static helper function": """\
        declare that function `static __always_inline`""",
}  # the first that fits


@frozen
class Complaint:
    """An error of clang.

    Attributes:
        file: Where, as clang says it.
        line: From 1.
        column: From 1.
        words: What is wrong.
        shown: What clang prints below it: the line, and carets.
        foreign: What it refers to is not in the author's files.
    """

    file: str
    line: int
    column: int
    words: str
    shown: tuple[str, ...] = ()
    foreign: bool = False


def origins(written: str, rewritten: str) -> list[int]:
    """For each line that bcc made, the line that it was written on.

    bcc inserts an attribute before a function and a line break after its brace, and changes other lines in place.

    Args:
        written: The author's source.
        rewritten: What bcc made of it.

    Returns:
        Line numbers from 1; entry 0 is line 1.
    """
    import difflib

    before, after = written.splitlines(), rewritten.splitlines()
    numbers: list[int] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        at = a
        for text in after[c:d]:
            numbers.append(min(at, len(before) - 1) + 1)
            if kind == "equal" or (at < b - 1 and not _INSERTED.fullmatch(text.strip())):
                at += 1
    return numbers


def split(messages: str, source: Path) -> tuple[str, str, str]:
    """bcc's output in parts.

    Args:
        messages: What it printed when asked to show the source.
        source: The C file.

    Returns:
        Messages about the source as it was written; the rewritten source, empty where bcc did not get that far; and
        messages about that one.
    """
    head, begin, rest = messages.partition(_BEGIN.format(source) + "\n")
    if not begin:
        return messages, "", ""
    rewritten, _, tail = rest.partition(_END)
    return head, rewritten, tail


def complaints(messages: str, text: Text, ours: Collection[str], lines: Sequence[int] = ()) -> list[Complaint]:
    """The errors among clang's messages.

    Args:
        messages: As clang prints them.
        text: What it was given.
        ours: The author's files.
        lines: What `origins` says, where the messages are about the rewritten text.
    """
    found: list[Complaint] = []
    relevant = False
    for said in messages.splitlines():
        place = _PLACE.match(said)
        if place is None:
            relevant = relevant and bool(said.strip()) and (not found[-1].shown or said.startswith(" "))
            if relevant:
                found[-1] = evolve(found[-1], shown=(*found[-1].shown, said.rstrip()))
            continue
        kind = _KIND.match(place["text"])
        assert kind is not None
        file, line = place["file"], int(place["line"])
        is_error = "error" in (kind["kind"] or "") or said.startswith("error: ")
        relevant = is_error
        if is_error:
            words = re.sub(r"^in function (\w+) [^:]*: ", r"in \1: ", kind["words"])
            if file == str(text.source):
                file, line = text.place(lines[line - 1] if 0 < line <= len(lines) else line)
            found.append(Complaint(file, line, int(place["column"]), words))
        elif kind["kind"] == "note" and found and file not in ours:
            found[-1] = evolve(found[-1], foreign=True)
    return list(dict.fromkeys(found))


def explain(messages: str, text: Text, ours: Collection[Path]) -> tuple[str, str]:
    """What to tell the author of a source that was refused.

    Args:
        messages: What bcc printed.
        text: What it was given.
        ours: The source and the other files that it may include.

    Returns:
        A message with the first errors, each with its place, and a hint, or an empty one.
    """
    source = text.source
    head, rewritten, tail = split(messages, source)
    files = [str(path) for path in ours]
    found = complaints(head, text, files) + complaints(tail, text, files, origins(text.written, rewritten))
    if not found:
        return _about_map(messages, source, ours) or (f"bcc refuses {source}:\n{_without_noise(tail or head)}", "")
    parts = [f"{c.file}:{c.line}:{c.column}: {c.words}" + _lines(c) for c in found[:_MOST]]
    if len(found) > _MOST:
        parts.append(f"and {len(found) - _MOST} more")
    return "bcc refuses the C source\n" + "\n".join(parts), _remedy(found, source)


def _about_map(messages: str, source: Path, ours: Collection[Path]) -> tuple[str, str] | None:
    """What to tell of a map that the kernel does not make for bcc; None where that is not the matter."""
    refused = _MAP.search(messages)
    if refused is None:
        return None
    name, reason = refused["name"], refused["reason"]
    declaration = re.compile(rf"\b(?P<macro>BPF_\w+|LAYOUT)\s*\((?:[^;]*?,)?\s*{re.escape(name)}\s*[,)][^;]*")
    place, macro = str(source), ""
    for path in (source, *(path for path in ours if path != source)):
        text = path.read_text(encoding="utf-8")
        found = declaration.search(text)
        if found:
            place, macro = f"{path}:{text.count(chr(10), 0, found.start()) + 1}", found["macro"]
            break
    hints = {"Operation not permitted": _NOT_PERMITTED, "Cannot allocate memory": _NO_MEMORY}
    hint = hints.get(reason, "") or (_RING_PAGES if macro.startswith("BPF_RINGBUF") else _MAP_SIZES)
    return f"{place}: the kernel refuses the map {name}: {reason}", " ".join(hint.split())


def _lines(complaint: Complaint) -> str:
    shown = complaint.shown or (f"  {source_line(complaint.file, complaint.line).strip()}",)
    return "".join(f"\n    {text}" for text in shown if text.strip())


def _remedy(found: list[Complaint], source: Path) -> str:
    stem = source.name.partition(".")[0]
    for complaint in found:
        for pattern, remedy in _REMEDIES.items():
            match = re.search(pattern, complaint.words)
            if match and (complaint.foreign or pattern != _CLASH):
                names = {key: value for key, value in match.groupdict().items() if value}
                name = next(iter(names.values()), "")
                return " ".join(remedy.format_map({"stem": stem, "name": name, **names}).split())
    return ""


def _without_noise(messages: str) -> str:
    """What is left when bcc's own words about how it runs clang are taken out."""
    kept = [line for line in messages.splitlines() if not line.startswith(("Running from kernel", "clang -cc1"))]
    return "\n".join(kept).strip()
