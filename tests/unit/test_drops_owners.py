from __future__ import annotations

import os
from pathlib import Path

import pytest

from probekit.host import Machine
from probekit_drops import owners

_ALL = 0x1FFFFFFFFFF
_SYSLOG_ONLY = 1 << 34


def _process(folder: Path, number: int, comm: bytes | None, *sockets: int) -> Path:
    process = folder / str(number)
    (process / "fd").mkdir(parents=True)
    if comm is not None:
        (process / "comm").write_bytes(comm + b"\n")
    for at, inode in enumerate(sockets):
        (process / "fd" / str(at)).symlink_to(f"socket:[{inode}]")
    return process


def _own(folder: Path, capabilities: int) -> None:
    (folder / "self").mkdir()
    (folder / "self/status").write_bytes(b"Name:\tcaf\xe9\nCapEff:\t%016x\n" % capabilities)


def test_a_name_that_is_no_utf8_or_spans_lines_is_a_name(tmp_path: Path) -> None:
    _process(tmp_path, 10, b"caf\xe9-\xd0\xbf\xd1", 1)
    _process(tmp_path, 11, b"line\nfeed \x1b[31m", 2)
    found = owners.Owners(Machine(), tmp_path).of({1, 2, 3})
    assert found == {1: (10, "caf\ufffd-\u043f\ufffd"), 2: (11, "line\nfeed \x1b[31m")}


def test_what_is_odd_in_proc_costs_no_other_process_its_name(tmp_path: Path) -> None:
    (tmp_path / "9").symlink_to(tmp_path / "gone")
    (tmp_path / "8").write_text("no folder")
    (_process(tmp_path, 7, b"odd") / "fd" / "0").write_text("no link")
    (_process(tmp_path, 6, b"odd") / "fd" / "0").symlink_to(os.fsdecode(b"caf\xe9"))
    _process(tmp_path, 10, None, 1)  # it ended between its sockets and its name
    _process(tmp_path, 11, b"fine", 2)
    found = owners.Owners(Machine(), tmp_path)
    assert found.of({1, 2}) == {1: (10, ""), 2: (11, "fine")}
    assert found.refused == 0


def test_a_socket_keeps_its_owner_when_that_is_gone(tmp_path: Path) -> None:
    process = _process(tmp_path, 10, b"brief", 1)
    found = owners.Owners(Machine(), tmp_path)
    first = found.of({0, 1})
    (process / "fd" / "0").unlink()
    assert found.of({0, 1}) == first == {1: (10, "brief")}
    assert found.of({2}) == {}
    assert first == {1: (10, "brief")}


@pytest.mark.parametrize(
    ("capabilities", "lacking"),
    [(_ALL, ()), (_SYSLOG_ONLY, ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")), (_ALL & ~(1 << 19), ("CAP_SYS_PTRACE",))],
)
def test_what_is_lacking_to_see_other_processes_is_known(
    tmp_path: Path, capabilities: int, lacking: tuple[str, ...]
) -> None:
    _own(tmp_path, capabilities)
    assert owners.Owners(Machine(), tmp_path).lacking == lacking


def test_namespaces_whose_links_dangle_or_whose_names_are_bytes_cost_a_name(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "blue").write_text("")
    (tmp_path / os.fsdecode(b"caf\xe9")).write_text("")
    assert sorted(name for _, name in owners.namespaces(tmp_path)) == ["blue", "caf\ufffd"]
    assert owners.namespaces(tmp_path / "nowhere") == []
