"""What the benchmarks look at: their own programs, whatever others load and unload meanwhile."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..bench import __main__ as bench
from ..bench import drops, kernel_path, peers, programs
from ..bench.programs import Program
from .conftest import PROBEKIT


def test_programs_are_those_of_the_process_that_was_started_while_others_come_and_go() -> None:
    command = [PROBEKIT, "run", "drops", "--duration", "100ms", "--export", "json:/dev/null"]
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60)

    beside = threading.Thread(target=others)
    beside.start()
    try:
        with peers.counted(), peers.probe() as running:
            ids = programs.held(running.pid)
            start = programs.counts(ids)
            for _ in range(5):
                assert programs.held(running.pid) == ids
            kernel_path._connect(50)
            stop = programs.counts(ids)
        names = {program.name for program in start.values()}
        assert {"send_btf", "receive_btf"} <= names
        assert not any("kfree_skb" in name or "drop" in name for name in names)
        assert programs.between(start, stop, ids).runs > 50
    finally:
        over.set()
        beside.join()
    assert programs.held(running.pid) == set()
    assert programs.counts(ids) == {}
    assert programs.between(start, {}, ids) == Program("", 0, 0)


def test_a_peer_that_does_not_start_has_no_programs() -> None:
    with ExitStack() as stack:
        assert kernel_path.programs_of(stack, ["false"]) == set()


def test_the_costs_of_a_round_are_net_of_the_empty_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_path, "REQUESTS", 10)
    monkeypatch.setattr(kernel_path, "CONNECTIONS", 10)
    names = {1: "empty", 2: "one", 3: "send_btf", 4: "receive_btf", 5: "readable_btf", 6: "state_btf"}
    start = {number: Program(name, 100, 1000) for number, name in names.items()}
    stop = {number: Program(name, 120, 1000 + 20 * (40 + number)) for number, name in names.items()}
    stop[6] = Program("state_btf", 101, 1090)  # not with each request
    del stop[2], start[5]  # gone, and come, meanwhile
    start[5], ours = Program("readable_btf", 0, 0), {3, 4, 5, 6}
    costs = kernel_path.net(start, stop, {1}, {2}, ours)
    assert costs == {
        "empty": 41.0,
        "one-liner": 0,
        "send and receive": 5.0,
        "arrival": pytest.approx(1900 / 120 - 41),
    }
    assert kernel_path.a_connection(start, stop, {3}, 41.0) == 4
    assert kernel_path.a_connection(start, stop, set(), 41.0) == "does not attach on this kernel"
    assert drops._cost(start, stop, {3}) == 43.0
    assert drops._cost(start, stop, {2}) != drops._cost(start, stop, {2})  # no figure, rather than none of its time


def test_every_section_is_there_and_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in bench.SECTIONS:
        assert Path(bench.__file__).with_name(f"{name}.py").is_file()
    bench._show("a_section", {"with_parts": {"x": 1.5, "rounds": [1]}, "y": "text"})
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "a section / with parts / x", "a section / y",
    ]  # fmt: skip
    assert peers.spread([1.0, 3.0, 2.0]) == "2.000 (1.000 to 3.000)"
    assert peers.cpu_seconds(os.getpid()) > 0
