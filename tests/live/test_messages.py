"""What clang and the verifier refuse is told with the author's file and line, and what to do."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path

import attrs
import pytest

from probekit import AttachPlan, KernelFacts, Observation
from probekit.attach import Tracepoint
from probekit.compile import compile_plan
from probekit.errors import CompileError, ProbekitError, VerifierError
from probekit.load import Gate, Loaded
from probekit.machine import kernel
from probekit.testing import Harnesses

SOURCES = Path(__file__).parent / "sources"
_CALL, _KTIME_GET_NS = 0x85, 5  # BPF_JMP | BPF_CALL; enum bpf_func_id
VERIFIER = {
    "null_check": "may be NULL: check it and return before you use it",
    "endless_loop": "give it a constant bound, for (int i = 0; i < 64; i++)",
    "beyond": "compare the index with the constant size right before the access",
}
CLANG = {
    "big_stack": "a program has 512 bytes of stack: keep large values in a map",
    "taken_name": "the kernel already uses that name, and all its types come from its BTF: choose another one, such "
    "as taken_name_key",
    "misspelt": 'let the plan ask kernel.has_name("start_tim")',
    "macro": "#define ETH_P_ALL in your source",
    "include": "no kernel headers are used",
}


def plan(source: Path) -> AttachPlan:
    points = (Tracepoint("sched_process_exit", "process_exit"),)
    return AttachPlan(source=source, observations=(Observation("exit", points),), sources=())


def refusal(source: Path) -> ProbekitError:
    facts = kernel.detect()

    def attach() -> None:
        with Gate() as gate, Loaded(compile_plan(plan(source), facts), plan(source), facts, gate) as loaded:
            loaded.attach()

    with pytest.raises(ProbekitError) as caught:
        attach()
    print(f"error: {caught.value.message}\nhint: {caught.value.hint}")
    return caught.value


def marked(source: Path) -> int:
    """The line that the source itself says is at fault."""
    return next(number for number, line in enumerate(source.read_text().splitlines(), 1) if "// HERE" in line)


@pytest.mark.parametrize("name", VERIFIER)
def test_a_refusal_of_the_verifier_names_the_line_and_a_remedy(name: str) -> None:
    source = SOURCES / f"{name}.bpf.c"
    error = refusal(source)
    assert isinstance(error, VerifierError)
    line = marked(source)
    assert re.search(rf"^ +{re.escape(str(source))}:{line}: \S", error.message, re.MULTILINE)
    assert re.search(rf"^ +> +{line} .*// HERE$", error.message, re.MULTILINE)
    assert re.search(rf"^ +remedy: .*{re.escape(VERIFIER[name])}", error.message, re.MULTILINE)
    last = error.message.partition("last instructions of process_exit:\n")[2]
    assert re.search(rf"^ +; {name}\.bpf\.c:{line}: .*// HERE\n +\d+: \S", last, re.MULTILINE)


def test_a_line_is_told_where_its_file_is_now_though_the_object_was_made_elsewhere(tmp_path: Path) -> None:
    text = (SOURCES / "null_check.bpf.c").read_text().replace("bump(task->pid)", f"bump(task->pid + {os.getpid()})")
    for name in ("made", "used"):
        source = tmp_path / name / "null_check.bpf.c"
        source.parent.mkdir()
        source.write_text(text)
    compile_plan(plan(tmp_path / "made" / source.name), kernel.detect())
    shutil.rmtree(tmp_path / "made")
    message = refusal(source).message
    assert f"{source}:{marked(source)}: " in message
    assert "made" not in message


@pytest.mark.parametrize("name", CLANG)
def test_a_compile_error_names_the_line_and_a_remedy(name: str) -> None:
    source = SOURCES / f"{name}.bpf.c"
    error = refusal(source)
    assert isinstance(error, CompileError)
    head, first, shown = error.message.splitlines()[:3]
    assert head == "bcc refuses the C source"
    assert re.match(rf"{re.escape(str(source))}:{marked(source)}:\d+: \S", first)
    assert "// HERE" in shown
    assert CLANG[name] in error.hint
    assert "vmlinux" not in error.message
    assert "clang -cc1" not in error.message


def test_a_name_that_the_source_itself_has_twice_is_not_said_to_be_the_kernels(tmp_path: Path) -> None:
    source = tmp_path / "twice.bpf.c"
    twice = "struct ours_alone { u32 a; };\nstruct ours_alone { u32 b; };\n"
    source.write_text(twice + "int process_exit(u64 *c) { return 0; }\n")
    error = refusal(source)
    assert f"{source}:2:8: redefinition of 'ours_alone'" in error.message
    assert error.hint == ""


def test_an_error_in_a_header_of_the_authors_names_the_header(tmp_path: Path) -> None:
    header, source = tmp_path / "helpers.h", tmp_path / "main.bpf.c"
    header.write_text("static u32 one(void) {\n  return no_such_thing;\n}\n")
    source.write_text('#include "helpers.h"\nint process_exit(u64 *c) { return one(); }\n')
    assert f"{header}:2:10: use of undeclared identifier 'no_such_thing'" in refusal(source).message


def test_every_instruction_that_reads_the_clock_comes_from_a_line_that_does(probe_harness: Harnesses) -> None:
    """bcc inserts lines into a source; a real one of 600 lines has to be led back exactly."""
    compiled = probe_harness("latency").compile()
    checked = 0
    for program, code in compiled.programs.items():
        for number, file, line in struct.iter_unpack("=III", compiled.lines[program]):
            opcode, registers, _, helper = struct.unpack_from("=BBhi", code, number * 8)
            if (opcode, registers, helper) == (_CALL, 0, _KTIME_GET_NS):  # two that clang made one have no line
                text = Path(compiled.files[file]).read_text().splitlines()[line - 1]
                assert "bpf_ktime_get_ns()" in text, (program, number, compiled.files[file], line)
                checked += 1
    assert checked >= 4


def test_a_kernel_that_tells_no_lines_is_no_reason_to_fail() -> None:
    source = SOURCES / "null_check.bpf.c"
    facts: KernelFacts = kernel.detect()
    compiled = attrs.evolve(compile_plan(plan(source), facts), files=(), lines={})
    with (
        pytest.raises(VerifierError, match=r"remedy: .* may be NULL"),
        Gate() as gate,
        Loaded(compiled, plan(source), facts, gate) as loaded,
    ):
        loaded.attach()
