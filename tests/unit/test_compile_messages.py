"""clang's messages as an author reads them: needs neither a compiler nor root."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.compile import messages, sources
from probekit.errors import CompileError
from probekit.model import AttachPlan

WRITTEN = """#include "programs.h"
BPF_HASH(counts, u32, u64, 8);
int it(u64 *ctx) {
  u32 zero = 0;
  counts.increment(zero);
  return nothing;
}
"""
REWRITTEN = """#include "programs.h"
BPF_HASH(counts, u32, u64, 8);
__attribute__((section(".bpf.fn.it")))
int it(u64 *ctx) {

  u32 zero = 0;
  ({ typeof(counts.key) _key = zero; bpf_map_update_elem_(1, &_key); });
  return nothing;
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "it.bpf.c"
    path.write_text(WRITTEN)
    return path


def whole(source: Path) -> sources.Text:
    return sources.text(AttachPlan(source, (), ()))


def test_lines_that_bcc_inserted_and_changed_are_led_back() -> None:
    lines = messages.origins(WRITTEN, REWRITTEN)
    written = WRITTEN.splitlines()
    for number, text in enumerate(REWRITTEN.splitlines()):
        if text in written:
            assert written[lines[number] - 1] == text
    assert lines[REWRITTEN.splitlines().index("  return nothing;")] == 6
    assert lines[6] == 5  # the increment, as it was written
    assert messages.origins(WRITTEN, WRITTEN) == list(range(1, 8))


def test_what_bcc_prints_has_three_parts(source: Path) -> None:
    text = f'warning: before\n#line 1 "{source}"\n{REWRITTEN}#include <bcc/footer.h>\nerror: after\n'
    assert messages.split(text, source) == ("warning: before\n", REWRITTEN, "\nerror: after\n")
    assert messages.split("it did not get that far", source) == ("it did not get that far", "", "")


def _said(source: Path) -> str:
    return (
        f"{source}:6:10: error: use of undeclared identifier 'NOTHING'\n  return nothing;\n         ^\n"
        f"{source}:5:3: warning: unused\n  counts\n  ^\n"
        "1 warning and 1 error generated.\n"
    )


def test_an_error_has_its_place_its_line_and_a_remedy_and_warnings_are_left_out(source: Path) -> None:
    message, hint = messages.explain(_said(source), whole(source), (source,))
    assert message == (
        f"bcc refuses the C source\n{source}:6:10: use of undeclared identifier 'NOTHING'\n"
        "      return nothing;\n             ^"
    )
    assert hint.startswith("BTF has the kernel's types and enums but no macros: #define NOTHING")


def test_an_error_about_what_bcc_made_is_told_of_what_was_written(source: Path) -> None:
    line = REWRITTEN.splitlines().index("  return nothing;") + 1
    text = (
        f'#line 1 "{source}"\n{REWRITTEN}#include <bcc/footer.h>\n{source}:{line}:10: error: stack limit of 512 bytes\n'
    )
    message, hint = messages.explain(text, whole(source), (source,))
    assert message.startswith(f"bcc refuses the C source\n{source}:6:10: stack limit of 512 bytes\n")
    assert "struct it_big" in hint


def test_of_many_errors_the_first_are_told_each_once(source: Path) -> None:
    text = "".join(f"{source}:{line}:1: error: fault {line}\n" * 2 for line in range(1, 8))
    message, hint = messages.explain(text, whole(source), (source,))
    assert message.count("fault") == 5
    assert message.endswith("and 2 more")
    assert hint == ""


@pytest.mark.parametrize(("file", "remedy"), [("/tree/types.h", True), ("", False)])
def test_a_name_that_the_kernel_has_is_told_from_one_that_the_author_has_twice(
    source: Path, file: str, remedy: bool
) -> None:
    text = f"{source}:2:8: error: redefinition of 'sock'\n{file or source}:9:1: note: previous definition is here\n"
    _, hint = messages.explain(text, whole(source), (source,))
    assert hint == (
        "the kernel already uses that name, and all its types come from its BTF: choose another one, such as it_sock"
        if remedy
        else ""
    )


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("Operation not permitted", "run as root, or with CAP_BPF"),
        ("Cannot allocate memory", "give the map fewer entries"),
        ("Invalid argument", "a map needs at least 1 entry"),
    ],
)
def test_a_map_that_the_kernel_refuses_is_told_with_its_declaration(source: Path, reason: str, hint: str) -> None:
    message, told = messages.explain(f"could not open bpf map: counts, error: {reason}\n", whole(source), (source,))
    assert message == f"{source}:2: the kernel refuses the map counts: {reason}"
    assert told.startswith(hint)


def test_what_is_not_known_is_told_as_it_is_without_noise(source: Path) -> None:
    said = "Running from kernel directory at: x\nclang -cc1 y\nodd\n"
    message, hint = messages.explain(said, whole(source), (source,))
    assert (message, hint) == (f"bcc refuses {source}:\nodd", "")


def test_a_header_with_maps_is_put_in_where_it_is_included_and_each_line_keeps_its_place(tmp_path: Path) -> None:
    source = tmp_path / "it.bpf.c"
    source.write_text('#include "programs.h"\n#include "two.bpf.h"\n#include "one.bpf.h"\nint last;\n')
    (tmp_path / "one.bpf.h").write_text("#pragma once\nBPF_HASH(one);\n")
    (tmp_path / "two.bpf.h").write_text('#include "one.bpf.h"\n  #include "two.bpf.h"\nint two;\n')
    text = whole(source)
    lines = text.written.splitlines()
    assert '#include "programs.h"' in lines
    assert "#pragma once" not in text.written
    assert not any("bpf.h" in line for line in lines)
    assert lines.index("BPF_HASH(one);") < lines.index("int two;") < lines.index("int last;")
    places = {line: text.place(number) for number, line in enumerate(lines, 1) if "int" in line}
    assert places == {"int two;": (str(tmp_path / "two.bpf.h"), 3), "int last;": (str(source), 4)}
    once = [number for number, line in enumerate(lines) if line == "BPF_HASH(one);"]
    guards = [lines[number - 3] for number in once]  # #ifndef, #define, the pragma's line, the map
    assert len(once) == 2
    assert guards[0] == guards[1]
    assert guards[0].startswith("#ifndef ")


def test_an_error_in_a_header_with_maps_is_told_of_that_header(tmp_path: Path) -> None:
    source, header = tmp_path / "it.bpf.c", tmp_path / "maps.bpf.h"
    source.write_text('#include "maps.bpf.h"\nint it;\n')
    header.write_text("#pragma once\nint nothing = NOTHING;\n")
    text = whole(source)
    line = text.written.splitlines().index("int nothing = NOTHING;") + 1
    said = f"{source}:{line}:15: error: use of undeclared identifier 'NOTHING'\n"
    message, _ = messages.explain(said, text, (source, header))
    assert message.startswith(f"bcc refuses the C source\n{header}:2:15: use of undeclared identifier 'NOTHING'\n")
    assert "int nothing = NOTHING;" in message


def test_a_header_with_maps_within_another_kind_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "it.bpf.c"
    source.write_text('#include "plain.h"\n')
    (tmp_path / "plain.h").write_text('#include "maps.bpf.h"\n')
    (tmp_path / "maps.bpf.h").write_text("")
    with pytest.raises(CompileError, match=r"plain.h includes maps.bpf.h") as refused:
        whole(source)
    assert "plain.h NAME.bpf.h" in refused.value.hint
