"""The compiler's process and bpftool where they fail: each has an end, and says what was the matter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from probekit.compile import headers, process
from probekit.compile import worker as compiler
from probekit.errors import CompileError, MissingError, ProbekitError
from probekit.machine import kernel
from probekit.machine.kernel import find_bpftool

_REQUEST = {"source": "it.bpf.c"}
_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def _answering(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, limit: float = 60) -> process.Answer:
    """What becomes of a worker that does what the code says."""
    worker = folder / "worker.py"
    worker.write_text(f"import os, signal, sys, time\nrequest = sys.stdin.read()\n{code}\n")
    monkeypatch.setattr(compiler, "__file__", str(worker))
    return process.ask(_REQUEST, limit)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            r"was killed \(SIGKILL\) while it compiled it\.bpf\.c; \d+ MB of memory",
        ),
        (
            "print('LLVM ERROR: out of memory', file=sys.stderr); sys.exit(1)",
            r"was killed \(exit status 1\).* MB of mem",
        ),
        ('print("what():  std::bad_alloc", file=sys.stderr); os.abort()', r"was killed \(SIGABRT\).* MB of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
        ("os.kill(os.getpid(), 40)", r"crashed \(signal 40\)"),
        ("sys.exit(7)", r"crashed \(exit status 7\)"),
        ("sys.exit(3)", r"Python's bcc is missing"),
        ("", r"does not answer with an object of it\.bpf\.c: no JSON"),
        ("print('{')", r"no JSON"),
        ("os.write(1, bytes(range(256)))", r"no JSON"),
        ("print('[' * 100000)", r"no JSON"),
    ],
)
def test_a_compiler_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(ProbekitError, match=words) as caught:
        _answering(monkeypatch, tmp_path, code)
    assert caught.value.hint


def test_a_compiler_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"has not come to an end within 0\.5 s of it\.bpf\.c, and was killed"):
        _answering(monkeypatch, tmp_path, "time.sleep(60)", 0.5)


def test_the_compiler_gets_nothing_of_the_users_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "CPATH", "C_INCLUDE_PATH", "BCC_LINUX_VERSION_CODE", "PYTHONPATH", "LLVM_OPTIONS"):
        monkeypatch.setenv(name, str(tmp_path))
    packages = tmp_path / f".local/lib/python3.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    (packages / "theirs.pth").write_text(f"import os; open({str(tmp_path / 'run')!r}, 'w')\n")
    answer = _answering(monkeypatch, tmp_path, "import json; print(json.dumps([dict(os.environ), sys.path]))")
    environment, paths = answer.document
    assert environment["PATH"] == process.SAFE_PATH
    assert not [name for name, value in environment.items() if str(tmp_path) in value]
    assert not [path for path in paths if path.startswith(str(tmp_path / ".local"))]
    assert not (tmp_path / "run").exists()


def _bpftool(folder: Path, script: str) -> Path:
    tool = folder / "bpftool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return tool


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo broken >&2; exit 1", r"bpftool cannot read .*: broken"),
        ("kill -9 $$", r"bpftool cannot read .*: it ends with status -9 and writes no types"),
        ("exit 0", r"cannot read .*: it ends with status 0 and writes no types"),
        ("head -c 1000 /dev/urandom", r"cannot read .*: it ends with status 0 and writes no types"),
        ("sleep 60", r"has not come to an end within 0\.5 s of reading .*, and was killed"),
    ],
)
def test_a_bpftool_that_fails_says_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: str
) -> None:
    monkeypatch.setattr(headers, "find_bpftool", lambda: str(_bpftool(tmp_path, script)))
    monkeypatch.setattr(process, "LIMIT_SECONDS", 0.5)
    with pytest.raises(CompileError, match=words):
        headers.make(tmp_path / "out", kernel.VMLINUX_BTF, "6.1.0", Path("/nowhere"), 4096)


def test_a_program_that_is_none_is_no_bpftool_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "bpftool"
    tool.write_bytes(b"\x7fELF nonsense")
    tool.chmod(0o755)
    monkeypatch.setattr(headers, "find_bpftool", lambda: str(tool))
    with pytest.raises(CompileError, match="cannot be run: Exec format error"):
        headers.make(tmp_path / "out", kernel.VMLINUX_BTF, "6.1.0", Path("/nowhere"), 4096)
    monkeypatch.setattr(headers, "find_bpftool", lambda: None)
    with pytest.raises(MissingError, match="bpftool is missing"):
        headers.make(tmp_path / "out", kernel.VMLINUX_BTF, "6.1.0", Path("/nowhere"), 4096)


def test_bpftool_is_looked_for_by_absolute_paths_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _bpftool(tmp_path, "exit 0")
    monkeypatch.chdir(tmp_path)
    for path in (".", "", "::", f"..{os.sep}{tmp_path.name}"):
        monkeypatch.setenv("PATH", path)
        assert find_bpftool() != str(tmp_path / "bpftool")
        assert (find_bpftool() or "/").startswith("/")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_bpftool() == str(tmp_path / "bpftool")


@_root
@pytest.mark.parametrize("harm", ["file's owner", "file's mode", "folder's owner", "folder's mode", "link"])
def test_a_bpftool_that_others_can_change_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    tool = _bpftool(folder, "exit 0")
    monkeypatch.setenv("PATH", str(folder))
    assert find_bpftool() == str(tool)
    if harm == "link":
        elsewhere = tmp_path / "theirs"
        tool.replace(elsewhere)
        os.chown(elsewhere, 12345, -1)
        tool.symlink_to(elsewhere)
    elif harm.endswith("owner"):
        os.chown(tool if harm.startswith("file") else folder, 12345, -1)
    else:
        (tool if harm.startswith("file") else folder).chmod(0o777)
    assert find_bpftool() != str(tool)
