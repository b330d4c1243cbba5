"""`probekit check` says what runs find, and what other places in the kernel say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probekit.machine import bpf

from .conftest import LiveProbe

PROBEKIT = [sys.executable, "-m", "probekit"]


def _symbols() -> set[str]:
    return {line.split()[2] for line in Path("/proc/kallsyms").read_text().splitlines()}


@pytest.fixture(scope="module")
def checked() -> str:
    return subprocess.run([*PROBEKIT, "check", "latency"], capture_output=True, text=True, check=True).stdout


def _tried(checked: str, way: str) -> dict[str, str]:
    """Target -> "works" or the reason against it."""
    return dict(re.findall(rf"^ +{way} (\w+): (.+)$", checked, re.MULTILINE))


def test_kprobes_are_there_where_the_kernel_has_the_function_that_makes_them(checked: str) -> None:
    assert ("kprobes: yes" in checked) == ("register_kprobe" in _symbols())


def test_a_tracepoint_works_where_the_kernel_has_its_symbol(checked: str) -> None:
    tried = _tried(checked, "tracepoint")
    symbols = _symbols()
    assert tried["inet_sock_set_state"] == "works"
    for name, answer in tried.items():
        there = f"__traceiter_{name}" in symbols
        assert answer == ("works" if there else "this kernel has no such tracepoint"), name


def test_a_run_takes_or_refuses_a_way_for_the_reasons_that_check_gives(way: str, checked: str) -> None:
    run = subprocess.run(
        [*PROBEKIT, "run", "latency", "--duration", "1s", "--set", f"probe.latency.attach={way}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    tried = {target: answer for target, answer in _tried(checked, way).items() if target != "inet_sock_set_state"}
    if run.returncode == 0:
        assert tried["tcp_sendmsg_locked"] == tried["tcp_rcv_space_adjust"] == "works"
    else:
        assert run.returncode == 3, run.stderr
        refused = re.findall(rf"^  {way} (\w+): (.+)$", run.stderr, re.MULTILINE)
        assert refused
        if tried:
            assert all(tried[target] == reason for target, reason in refused)
        else:  # check does not try kprobes where there are none
            assert "kprobes: no" in checked
            assert {reason for _, reason in refused} == {"this kernel has no kprobes"}


def test_the_size_of_each_program(probe: LiveProbe, way: str, record_property: Callable[[str, object], None]) -> None:
    names = [name for name, point in probe.attached.items() if point is not None]
    sizes = []
    for name, program in zip(names, probe.programs, strict=True):
        info = bpf.program_info(program)
        assert 0 < info["translated_bytes"] < 65536
        sizes.append(f"{name} {info['translated_bytes']}/{info['jited_bytes']}")
    record_property("note", f"{way}, bytes translated/JITed: {', '.join(sizes)}")
