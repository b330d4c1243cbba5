"""What the verifier says, as a program's author reads it: the line of the source, the last instructions, a remedy."""

from __future__ import annotations

import re
import struct

from ..machine.paths import source_line
from ..model import Object

_INSTRUCTION = re.compile(r"(?P<number>\d+): \((?P<code>[0-9a-f]{2})\) (?P<text>[^;]*)")
_NAMED = re.compile(r"\binsn (\d+)")
_SHOWN = 6
_AROUND = 1
_STATISTICS = ("processed ", "verification time", "stack depth", "insns processed", "func#", "Validating ")

_REMEDIES = {
    r"invalid mem access '\w*_or_null'": """\
        the result of a lookup or a reservation may be NULL: check it and return before you use it""",
    r"infinite loop|back-edge|too complex|too large|loop is not bounded": """\
        the verifier cannot see that a loop ends: give it a constant bound, for (int i = 0; i < 64; i++), and use break
        to leave early""",
    r"combined stack size|invalid (?:indirect |variable-offset )?(?:read|write|access).*(?:stack| R10 )": """\
        a program has 512 bytes of stack and may only read what it has written there: initialise variables with = {} and
        keep large values in a BPF_PERCPU_ARRAY of one entry""",
    r"invalid mem access '(?:scalar|inv)'": """\
        the verifier does not accept this as a pointer: read kernel memory with READ(direct, pointer, field) from
        programs.h or with bpf_probe_read_kernel, and get a program's argument with opaque(ctx[0])""",
    r"invalid access to map value|unbounded m|(?:min|max) value is|outside of the|pointer be out of bounds": """\
        the verifier cannot prove that this stays in bounds: compare the index with the constant size right before the
        access""",
    r"[Uu]nreleased reference": """\
        a reserved record is neither submitted nor discarded on some path: do one of the two before every return""",
    r"unknown func|cannot use helper|program of this type cannot": """\
        this kernel has no such helper for programs of this type; `bpftool feature probe` lists what it has""",
    r"pointer arithmetic|arithmetic .*prohibited|bitwise operator|pointer comparison|partial copy": """\
        the verifier does not allow arithmetic on this pointer: get a number by address_of(pointer) from programs.h""",
    r"!read_ok": """\
        this value was never set: initialise variables, and return a value on every path""",
    r"access beyond struct|cannot access ptr member|invalid bpf_context access": """\
        this struct member or program argument does not exist here, or programs may not access it""",
}  # the first that fits


def summary(words: str) -> str:
    """The reason, one line; empty without one.

    Args:
        words: The verifier's log without instructions.
    """
    lines = [line.strip() for line in words.splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_STATISTICS)]
    return reasons[-1] if reasons else ""


def details(compiled: Object, program: str, reason: str, log: str, ahead: int = 0) -> str:
    """Where in the source, the last instructions, and what to do.

    Args:
        compiled: The object, with its source lines.
        program: The C function.
        reason: What `summary` says.
        log: The verifier's log with its instructions.
        ahead: How many instructions in front of the program are none of its own.
    """
    seen = [(int(m["number"]) - ahead, m["text"].strip()) for m in map(_INSTRUCTION.match, log.splitlines()) if m]
    seen = [(number, text) for number, text in seen if number >= 0]
    named = _NAMED.search(reason)
    at = int(named[1]) - ahead if named else (seen[-1][0] if seen else None)
    lines = []
    place = place_of(compiled, program, at) if at is not None else None
    if place is not None:
        lines += [f"{place[0]}:{place[1]}: {reason}", *_excerpt(*place)]
    remedy = next((text for pattern, text in _REMEDIES.items() if re.search(pattern, reason)), "")
    if remedy:
        lines.append(f"remedy: {' '.join(remedy.split())}")
    if seen:
        lines.append(f"last instructions of {program}:")
        before = None
        for number, text in seen[-_SHOWN:]:
            where = place_of(compiled, program, number)
            if where is not None and where != before:
                lines.append(f"  ; {where[0].rpartition('/')[2]}:{where[1]}: {source_line(*where).strip()}")
            before = where
            lines.append(f"  {number}: {text}")
    return "\n".join(lines)


def place_of(compiled: Object, program: str, instruction: int) -> tuple[str, int] | None:
    """File and line that an instruction comes from; None where that is not known."""
    found = None
    for first, file, line in struct.iter_unpack("=III", compiled.lines.get(program, b"")):
        if first > instruction:
            break
        found = (compiled.files[file], line)
    return found


def _excerpt(file: str, line: int) -> list[str]:
    """The line with its neighbours."""
    shown = []
    for number in range(max(1, line - _AROUND), line + _AROUND + 1):
        text = source_line(file, number)
        if text.strip() or number == line:
            shown.append(f"  {'>' if number == line else ' '} {number:4} {text}".rstrip())
    return shown
