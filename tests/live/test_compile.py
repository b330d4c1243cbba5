from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probekit import AttachPlan, Observation
from probekit.attach import Tracepoint
from probekit.compile import compile_plan
from probekit.compile.cache import Cache
from probekit.machine import kernel

from .conftest import PROBEKIT, Probe


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [PROBEKIT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment})


def a_short_run(**environment: str) -> subprocess.CompletedProcess[str]:
    return run("run", "latency", "--duration", "100ms", "--export", "json:/dev/null", **environment)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the object of the latency probe."""
    base = tmp_path_factory.mktemp("cache")
    assert a_short_run(XDG_CACHE_HOME=str(base)).returncode == 0
    return base / "probekit"


def the_object(folder: Path) -> Path:
    (found,) = folder.glob("*.object")
    return found


def test_the_cache_is_its_owners_alone(cached: Path) -> None:
    assert cached.stat().st_mode & 0o777 == 0o700
    assert the_object(cached).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign", "writable"])
def test_an_entry_that_is_not_ours_or_not_whole_is_made_again(cached: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "probekit"
    shutil.copytree(cached, folder, symlinks=True)
    entry = the_object(folder)
    content = entry.read_bytes()
    if harm == "cut":
        entry.write_bytes(content[: len(content) // 2])
    elif harm == "changed":
        entry.write_bytes(content.replace(b'"send_btf"', b'"send_xxx"', 1))
    elif harm == "foreign":
        os.chown(entry, 65534, 65534)
    else:
        entry.chmod(0o666)
    assert a_short_run(XDG_CACHE_HOME=str(tmp_path)).returncode == 0
    remade = the_object(folder)
    assert json.loads(remade.read_bytes().partition(b"\n")[2])["programs"].keys() >= {"send_btf", "receive_btf"}
    assert (remade.stat().st_uid, remade.stat().st_mode & 0o777) == (0, 0o600)
    assert remade.stat().st_mtime_ns > the_object(cached).stat().st_mtime_ns


def test_a_folder_that_others_may_write_is_refused(cached: Path, tmp_path: Path) -> None:
    folder = tmp_path / "probekit"
    shutil.copytree(cached, folder)
    folder.chmod(0o777)
    done = a_short_run(XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 3
    assert f"the cache folder {folder} can be written by others" in done.stderr


def test_a_change_in_any_file_that_is_included_makes_another_object(tmp_path: Path) -> None:
    source, header, deep = tmp_path / "main.bpf.c", tmp_path / "parts" / "one.h", tmp_path / "parts" / "two.h"
    header.parent.mkdir()
    source.write_text('#include "parts/one.h"\nint process_exit(u64 *ctx) { return ANSWER; }\n')
    header.write_text('#include "two.h"\n')
    points = (Tracepoint("sched_process_exit", "process_exit"),)
    plan = AttachPlan(source=source, observations=(Observation("exit", points),), sources=())
    programs = []
    for answer in (0, 1):
        deep.write_text(f"#define ANSWER {answer}\n")
        programs.append(compile_plan(plan, kernel.detect(), Cache(tmp_path / "cache")).programs["process_exit"])
    assert programs[0] != programs[1]
    assert len(list((tmp_path / "cache").glob("*.object"))) == 2


def test_objects_made_before_need_no_compiler(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    made = run("compile", "latency", "--output", str(objects), XDG_CACHE_HOME=str(tmp_path))
    assert made.returncode == 0, made.stderr
    nowhere = str(tmp_path / "empty")
    arguments = ("run", "latency", "--objects", str(objects), "--duration", "100ms", "--export", "json:-")
    done = run(*arguments, XDG_CACHE_HOME=nowhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["probe"] == "latency"
    assert not Path(nowhere).exists()
    other = run(*arguments, "--set", "probe.latency.sample=0.5")
    assert other.returncode == 3
    assert "has no object for this kernel, configuration and version" in other.stderr


def test_no_compiler_is_mapped_while_it_measures(probe: Callable[..., Probe]) -> None:
    running = probe("latency")
    time.sleep(1)
    maps = Path(f"/proc/{running.pid}/maps").read_text()
    assert "libbcc_bpf" in maps
    assert "numpy" in maps
    for compiler in ("libLLVM", "libclang", "libbcc.so"):
        assert compiler not in maps


def test_maps_take_little_more_than_two_megabytes() -> None:
    (line,) = [line for line in run("check", "latency").stdout.splitlines() if "MB locked" in line]
    assert 0 < float(line.split()[2]) <= 2.25


def test_what_killed_starts_leave_is_removed_by_the_next_one_whatever_that_has_to_do(
    cached: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"XDG_CACHE_HOME": str(tmp_path / "empty"), "TMPDIR": str(temporary)}
    command = [PROBEKIT, "run", "latency", "--duration", "100ms", "--export", "json:/dev/null"]
    start = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    while not any(entry.is_dir() for entry in temporary.iterdir()):  # Python first tries the place with a file
        assert start.poll() is None
        time.sleep(0.001)
    start.kill()
    start.wait(10)
    assert list(temporary.iterdir())
    assert a_short_run(XDG_CACHE_HOME=str(cached.parent), TMPDIR=str(temporary)).returncode == 0
    assert list(temporary.iterdir()) == []
