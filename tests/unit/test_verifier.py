"""What is made of the verifier's words: needs neither a kernel nor root."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from probekit.load import verifier
from probekit.model import Object

SOURCE = """int it(u64 *ctx) {
  struct count *count = counts.lookup(&zero);
  count->calls++;
  return 0;
}
"""
LOG = """func#0 @0
0: R1=ctx() R10=fp0
; count->calls++;
6: (bf) r2 = r10                      ; R2_w=fp0 R10=fp0
7: (85) call bpf_map_lookup_elem#1    ; R0_w=map_value_or_null(id=1,map=counts,ks=4,vs=8)
8: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
WORDS = """R0 invalid mem access 'map_value_or_null'
verification time 81 usec
stack depth 8
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def _object(source: Path, ahead: int = 0) -> Object:
    """A program whose instructions 0 to 1 are of line 2 and the others of line 3."""
    lines = struct.pack("=6I", 0, 0, 2, 2, 0, 3)
    return Object("key", "bcc", (), {"it": bytes(8 * (9 - ahead))}, {}, (str(source),), {"it": lines})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "it.bpf.c"
    path.write_text(SOURCE)
    return path


def test_the_reason_is_the_last_line_that_is_no_figure() -> None:
    assert verifier.summary(WORDS) == "R0 invalid mem access 'map_value_or_null'"
    assert verifier.summary("processed 9 insns (limit 1000000)\n\n") == verifier.summary("") == ""


@pytest.mark.parametrize("ahead", [0, 6])
def test_the_line_of_the_last_instruction_is_shown_with_its_neighbours_and_a_remedy(source: Path, ahead: int) -> None:
    told = verifier.details(_object(source, ahead), "it", verifier.summary(WORDS), LOG, ahead).splitlines()
    assert told[0] == f"{source}:3: R0 invalid mem access 'map_value_or_null'"
    assert told[1:4] == [
        "       2   struct count *count = counts.lookup(&zero);", "  >    3   count->calls++;", "       4   return 0;",
    ]  # fmt: skip
    assert told[4].startswith("remedy: the result of a lookup or a reservation may be NULL")
    assert told[5] == "last instructions of it:"
    assert told[-1] == f"  {8 - ahead}: r1 = *(u64 *)(r0 +0)"
    assert sum("it.bpf.c:3:" in line for line in told[6:]) == 1  # not again for each instruction of a line


def test_an_instruction_that_the_reason_names_is_the_one_that_is_meant(source: Path) -> None:
    told = verifier.details(_object(source), "it", "infinite loop detected at insn 1", LOG)
    assert told.startswith(f"{source}:2: infinite loop detected at insn 1\n")
    assert "give it a constant bound" in told


def test_instructions_in_front_of_the_program_are_not_shown(source: Path) -> None:
    told = verifier.details(_object(source), "it", "R0 !read_ok", LOG, ahead=8)
    assert [line for line in told.splitlines() if line.startswith("  0: ")] == ["  0: r1 = *(u64 *)(r0 +0)"]
    assert "-1:" not in told


def test_without_lines_or_a_log_there_is_what_is_known(source: Path) -> None:
    nothing = Object("key", "bcc", (), {"it": b""}, {})
    assert verifier.details(nothing, "it", "something new", "") == ""
    assert verifier.details(nothing, "it", "R0 !read_ok", "").startswith("remedy: this value was never set")
    assert verifier.place_of(nothing, "it", 3) is None
    assert verifier.place_of(_object(source), "it", 1) == (str(source), 2)
    assert verifier.place_of(_object(source), "it", 99) == (str(source), 3)


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("back-edge from insn 7 to 3", "a loop ends"),
        ("BPF program is too large. Processed 1000001 insn", "a loop ends"),
        ("combined stack size of 2 calls is 576. Too large", "512 bytes of stack"),
        ("invalid read from stack R10 off=-16 size=8", "512 bytes of stack"),
        ("R1 invalid mem access 'scalar'", "as a pointer"),
        ("R1 unbounded memory access, make sure to bounds check any such access", "stays in bounds"),
        ("Unreleased reference id=2 alloc_insn=11", "neither submitted nor discarded"),
        ("unknown func bpf_nothing#999", "no such helper"),
        ("R2 pointer arithmetic on sock_or_null prohibited, null-check it first", "arithmetic on this pointer"),
        ("access beyond struct sock at off 10 size 8", "does not exist here"),
    ],
)
def test_each_kind_of_refusal_has_its_remedy(reason: str, remedy: str) -> None:
    told = verifier.details(Object("key", "bcc", (), {}, {}), "it", reason, "")
    assert told.startswith("remedy: ")
    assert remedy in told
