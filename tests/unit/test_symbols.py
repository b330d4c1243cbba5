from __future__ import annotations

from pathlib import Path

import pytest

from probekit.decode.symbols import Symbols

_LINES = """\
0000000000000010 A a_constant
ffffffff81000100 T second
ffffffff81000000 T first
ffffffff81000200 t third\t[module]
ffffffff81000280 D data
"""


def _symbols(folder: Path, lines: str = _LINES) -> Symbols:
    path = folder / "kallsyms"
    path.write_text(lines)
    return Symbols(path, folder / "modules")


def test_an_address_belongs_to_the_function_before_it(tmp_path: Path) -> None:
    symbols = _symbols(tmp_path)
    assert symbols.text(0xFFFFFFFF81000042) == "first+0x42"
    assert symbols.function(0xFFFFFFFF810002FF) == ("third", 0xFF)


def test_a_return_address_behind_a_functions_last_call_is_that_functions(tmp_path: Path) -> None:
    assert _symbols(tmp_path).text(0xFFFFFFFF81000100) == "first+0x100"


@pytest.mark.parametrize("lines", ["0000000000000000 T first\n0000000000000000 T second\n", ""])
def test_an_address_is_never_given_away(tmp_path: Path, lines: str) -> None:
    symbols = _symbols(tmp_path, lines)
    assert not symbols.hidden
    assert symbols.text(0xFFFFFFFF81000042) == symbols.function(0xFFFFFFFF81000042)[0] == "(hidden)"
    assert symbols.hidden
    assert Symbols(tmp_path / "none", tmp_path / "modules").text(0xFFFFFFFF81000042) == "(hidden)"


def test_what_is_before_every_function_has_no_name(tmp_path: Path) -> None:
    symbols = _symbols(tmp_path)
    assert symbols.text(0xFFFFFFFF80000000) == "(unknown)"
    assert not symbols.hidden


def test_a_module_that_is_loaded_later_is_found(tmp_path: Path) -> None:
    symbols = _symbols(tmp_path)
    assert symbols.text(0xFFFFFFFF81000242) == "third+0x42"
    (tmp_path / "kallsyms").write_text(_LINES + "ffffffff81000250 t fourth\t[new]\n")
    assert symbols.text(0xFFFFFFFF81000252) == "third+0x52"
    (tmp_path / "modules").write_text("new")
    assert symbols.text(0xFFFFFFFF81000253) == "fourth+0x3"
