"""Padding in bytes, and assertions, from types put together here."""

from __future__ import annotations

import struct

import pytest

from probekit.compile.layouts import exact
from probekit.machine.btf import Types

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF = 1, 2, 3, 4, 5, 6, 8
_Field = tuple[str, int, int] | tuple[str, int, int, int]  # name, type, bit, bits


class _Blob:
    def __init__(self) -> None:
        self.types = b""
        self.count = 0
        self.strings = b"\0"
        self.char = self.add(_INT, "char", 1, struct.pack("=I", 8))
        self.int = self.add(_INT, "int", 4, struct.pack("=I", 32))
        self.long = self.add(_INT, "long", 8, struct.pack("=I", 64))

    def name(self, text: str) -> int:
        if not text:
            return 0
        if b"\0" + text.encode() + b"\0" not in self.strings:
            self.strings += text.encode() + b"\0"
        return self.strings.index(b"\0" + text.encode() + b"\0") + 1

    def add(self, kind: int, name: str, value: int, behind: bytes = b"", vlen: int = 0, flag: int = 0) -> int:
        self.types += struct.pack("=III", self.name(name), flag << 31 | kind << 24 | vlen, value) + behind
        self.count += 1
        return self.count

    def composite(self, kind: int, name: str, size: int, *fields: _Field) -> int:
        entries = b"".join(
            struct.pack("=III", self.name(field[0]), field[1], field[2] | (field[3] if len(field) > 3 else 0) << 24)
            for field in fields
        )
        return self.add(kind, name, size, entries, len(fields), flag=int(any(len(field) > 3 for field in fields)))

    def array(self, of: int, length: int) -> int:
        return self.add(_ARRAY, "", 0, struct.pack("=III", of, self.int, length))

    def read(self) -> Types:
        head = struct.pack(
            "=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )  # fmt: skip
        return Types(head + self.types + self.strings)


def _body(text: str, head: str) -> list[str]:
    block = next(block for block in text.split("\n\n") if block.startswith(head))
    return [line.strip() for line in block.split("\n")[1:-1]]


def test_padding_that_is_too_short_is_written_anew_in_bytes() -> None:
    blob = _Blob()
    blob.composite(
        _STRUCT, "tcp", 72, ("a", blob.char, 0), ("marker", blob.array(blob.char, 0), 8), ("b", blob.long, 512)
    )
    header = "struct tcp {\n\tchar a;\n\tchar marker[0];\n\tlong: 64;\n\tlong: 64;\n\tlong b;\n};"
    assert _body(exact(header, blob.read()), "struct tcp") == [
        "char a;", "char marker[0];", "char probekit_padding_0[63];", "long b;",
    ]  # fmt: skip


def test_padding_that_is_missing_is_added_also_at_the_end() -> None:
    blob = _Blob()
    blob.composite(_STRUCT, "slot", 64, ("a", blob.int, 0), ("b", blob.int, 64))
    assert _body(exact("struct slot {\n\tint a;\n\tint b;\n};", blob.read()), "struct slot") == [
        "int a;", "char probekit_padding_0[4];", "int b;", "char probekit_padding_1[52];",
    ]  # fmt: skip


def test_bit_fields_stay_together_and_gaps_between_them_stay_gaps() -> None:
    blob = _Blob()
    blob.composite(
        _STRUCT, "bits", 8, ("a", blob.char, 0, 2), ("b", blob.char, 2, 1), ("c", blob.char, 5, 3), ("d", blob.int, 32)
    )
    header = "struct bits {\n\tchar a: 2;\n\tchar b: 1;\n\tchar: 2;\n\tchar c: 3;\n\tint d;\n};"
    assert _body(exact(header, blob.read()), "struct bits") == [
        "char a: 2;", "char b: 1;", "unsigned char: 2;", "char c: 3;", "char probekit_padding_0[3];", "int d;",
    ]  # fmt: skip


def test_members_of_anonymous_types_are_padded_too_and_unions_are_not() -> None:
    blob = _Blob()
    inner = blob.composite(_STRUCT, "", 16, ("a", blob.char, 0), ("b", blob.long, 64))
    either = blob.composite(_UNION, "", 16, ("x", blob.char, 0), ("", inner, 0))
    blob.composite(_STRUCT, "outer", 24, ("", either, 0), ("last", blob.long, 128))
    header = (
        "struct outer {\n\tunion {\n\t\tchar x;\n\t\tstruct {\n\t\t\tchar a;\n\t\t\tlong b;\n\t\t};\n\t};\n"
        "\tlong last;\n};"
    )
    assert _body(exact(header, blob.read()), "struct outer") == [
        "union {", "char x;", "struct {", "char a;", "char probekit_padding_0[7];", "long b;", "};", "};", "long last;",
    ]  # fmt: skip


def test_an_anonymous_enum_in_several_lines_is_one_member() -> None:
    blob = _Blob()
    colours = blob.add(_ENUM, "", 4, struct.pack("=IiIi", blob.name("RED"), 0, blob.name("BLUE"), 1), 2)
    blob.composite(_STRUCT, "paint", 16, ("colour", colours, 0), ("b", blob.long, 64))
    header = "struct paint {\n\tenum {\n\t\tRED = 0,\n\t\tBLUE = 1,\n\t} colour;\n\tlong b;\n};"
    assert _body(exact(header, blob.read()), "struct paint")[-2:] == ["char probekit_padding_0[4];", "long b;"]


def test_an_enum_of_one_byte_is_packed_and_others_are_not() -> None:
    blob = _Blob()
    blob.add(_ENUM, "hint", 1, struct.pack("=Ii", blob.name("COLD"), 1), 1)
    blob.add(_ENUM, "state", 4, struct.pack("=Ii", blob.name("OPEN"), 1), 1)
    made = exact("enum hint {\n\tCOLD = 1,\n};\n\nenum state {\n\tOPEN = 1,\n};", blob.read())
    assert "enum hint {\n\tCOLD = 1,\n} __attribute__((packed));" in made
    assert "enum state {\n\tOPEN = 1,\n};" in made


def test_every_field_has_an_assertion_but_bit_fields_and_anonymous_ones() -> None:
    blob = _Blob()
    inner = blob.composite(_STRUCT, "", 4, ("deep", blob.int, 0))
    blob.composite(_STRUCT, "sock", 16, ("a", blob.int, 0, 3), ("", inner, 32), ("c", blob.long, 64, 0))
    made = exact("struct sock {\n\tint a: 3;\n\tstruct {\n\t\tint deep;\n\t};\n\tlong c;\n};", blob.read())
    assert [line for line in made.splitlines() if line.startswith("_Static_assert")] == [
        '_Static_assert(sizeof(struct sock) == 16, "struct sock");',
        '_Static_assert(__builtin_offsetof(struct sock, c) == 8, "struct sock c");',
    ]


@pytest.mark.parametrize(("asserted", "count"), [(None, 4), ({"a"}, 2), (set(), 0)])
def test_assertions_are_for_the_structs_asked_for(asserted: set[str] | None, count: int) -> None:
    blob = _Blob()
    for name in "ab":
        blob.composite(_STRUCT, name, 4, ("x", blob.int, 0))
    header = "struct a {\n\tint x;\n};\n\nstruct b {\n\tint x;\n};"
    assert exact(header, blob.read(), asserted).count("_Static_assert") == count


def test_of_two_structs_of_a_name_each_gets_its_own_layout() -> None:
    blob = _Blob()
    blob.composite(_STRUCT, "slot", 16, ("number", blob.int, 0), ("next", blob.long, 64))
    blob.composite(_STRUCT, "slot", 64, ("device", blob.int, 0), ("next", blob.int, 256))
    header = "struct slot {\n\tint device;\n\tint next;\n};\n\nstruct slot___2 {\n\tint number;\n\tlong next;\n};"
    made = exact(header, blob.read())
    assert "char probekit_padding_0[28];" in _body(made, "struct slot {")
    assert "sizeof(struct slot) == 64" in made
    assert "sizeof(struct slot___2) == 16" in made


def test_what_is_not_in_the_btf_stays_as_it_is() -> None:
    header = "struct later;\n\nstruct none {};\n\nstruct other {\n\tint x;\n};\n\ntypedef int number;"
    assert exact(header, _Blob().read()).strip() == header
