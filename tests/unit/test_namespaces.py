from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.machine import namespaces


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is looked at in place of /run/netns."""
    monkeypatch.setattr(namespaces, "_NAMED", (tmp_path, tmp_path / "nowhere"))
    return tmp_path


def test_what_lies_among_the_names_of_namespaces_and_is_none_is_left_out(named: Path) -> None:
    before = namespaces.everywhere()
    (named / "dangling").symlink_to(named / "nowhere")
    (named / "circle").symlink_to(named / "circle")
    (named / os.fsdecode(b"caf\xe9")).write_text("left behind by a machine that was switched off")
    os.mkfifo(named / "fifo")  # to open it would take for ever
    assert namespaces.everywhere().keys() == before.keys()


def test_a_name_that_is_no_utf8_leads_into_its_namespace(named: Path) -> None:
    link = named / os.fsdecode(b"caf\xe9")
    link.symlink_to("/proc/self/ns/net")
    assert namespaces.number_of(link) == namespaces.number_of(namespaces.OWN)
    assert namespaces.inside(link, os.getpid) == os.getpid()


def test_processes_that_may_not_be_looked_at_are_counted() -> None:
    child = "import os, sys; from probekit.machine import namespaces; print(namespaces.survey().refused)"
    command = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", child]
    refused = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (refused > 0) == (os.geteuid() == 0)


def test_a_process_whose_link_leads_elsewhere_may_not_be_looked_at(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 5.10 has it: the link leads to the folder that it is in."""
    for process in ("12", "13", "self"):
        (named / process / "ns").mkdir(parents=True)
        (named / process / "ns/net").symlink_to(".")
    monkeypatch.setattr(namespaces, "_PROCESSES", named)
    (named / "names/folder").mkdir(parents=True)
    monkeypatch.setattr(namespaces, "_NAMED", (named / "names",))
    assert namespaces.survey().refused == 2


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "file"])
def test_what_is_no_namespace_has_no_number(named: Path, path: str) -> None:
    (named / "file").write_text("")
    with pytest.raises(OSError, match=r"No such file|no namespace's file"):
        namespaces.number_of(named / path)


def test_a_machine_without_proc_has_no_namespaces(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "OWN", named / "nowhere")
    assert namespaces.everywhere() == {}
