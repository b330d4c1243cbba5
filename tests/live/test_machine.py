"""Machines that lack something: a place to write, memory, /proc, /sys. Each in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import PROBEKIT

RUN = f"exec {PROBEKIT} run latency --duration 100ms --export json:-"
FULL = "mount -t tmpfs -o size=64k tmpfs {0} && mkdir -m 700 {0}/probekit && (cat /dev/zero > {0}/fill || true) 2>&-"

READ_ONLY = "mount --bind {0} {0} && mount -o remount,ro,bind {0}"


def run(script: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("harm", [FULL, "mkdir -m 700 {0}/probekit && " + READ_ONLY])
def test_a_cache_that_cannot_be_written_is_no_reason_not_to_run(tmp_path: Path, harm: str) -> None:
    done = run(f"{harm.format(tmp_path)}; {RUN}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"probe": "latency"' in done.stdout


def test_without_a_place_for_temporary_files_the_cache_is_one(tmp_path: Path) -> None:
    closed = " && ".join(READ_ONLY.format(folder) for folder in ("/tmp", "/var/tmp"))
    cache = Path("/run") / f"probekit-test-{os.getpid()}"
    try:
        done = run(f"{closed} && cd /proc && {RUN}", cache, TMPDIR="/nonexistent")
        assert done.returncode == 0, done.stderr
        assert {path.suffix or path.name[:8] for path in (cache / "probekit").iterdir()} == {".object", "headers-"}
    finally:
        subprocess.run(["rm", "-r", str(cache)], check=True)


def test_no_place_at_all_is_said(tmp_path: Path) -> None:
    full = FULL.format(tmp_path)
    done = run(f"{full}; {RUN}", tmp_path, TMPDIR=str(tmp_path))
    assert "internal error" not in done.stderr
    assert done.returncode in (0, 3)
    assert done.returncode == 0 or "there is no room for temporary files" in done.stderr


@pytest.mark.parametrize("place", ["/proc", "/sys"])
def test_what_is_not_mounted_is_said(tmp_path: Path, place: str) -> None:
    done = run(f"mount -t tmpfs tmpfs {place}; {RUN}", tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"{place} is not mounted" in done.stderr
    assert "internal error" not in done.stderr


def test_a_compiler_that_gets_no_memory_says_so(tmp_path: Path) -> None:
    done = run(f"ulimit -v 250000; {RUN}", tmp_path)
    assert done.returncode == 3, done.stderr
    assert "MB of memory were available" in done.stderr
    assert "internal error" not in done.stderr
