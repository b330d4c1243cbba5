"""The tests of known traps, the page that tells of them and the mutations that try them are of one mind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.kernel.mutations import mutate, read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "accuracy.md").read_text()
FILES = [
    *(ROOT / "tests" / "kernel").glob("test_traps_*.py"),
    *(ROOT / "tests/kernel" / f"test_{n}.py" for n in ("losses", "accuracy", "contention")),
]
TESTS = {name for file in FILES for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
# What protects these is where the programs are attached: there is nothing in a source that could be taken out.
BY_PLACE = {
    "test_kretprobe_slots",
    "test_splice_to_a_socket",
    "test_io_uring",
    "test_events_have_each_exchange",
}


def test_each_trap_is_told_of_and_each_test_that_is_told_of_is_there() -> None:
    assert TESTS
    assert set(re.findall(r"`(test_\w+)`", PAGE)) == TESTS


def test_each_trap_has_a_mutation() -> None:
    tried = {test for mutation in read().values() for test in mutation.tests}
    assert tried | BY_PLACE == TESTS
    assert not tried & BY_PLACE


@pytest.mark.parametrize("name", read())
def test_the_mutation_fits_the_source(name: str, tmp_path: Path) -> None:
    for folder in ("bpf", "probekit", "probekit_latency"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    mutate(tmp_path, read()[name])
