"""The compiler's process: started with nothing of the user's, given time, and what it says looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import frozen

from ..errors import CompileError, MissingError
from ..machine import outside
from ..machine.kernel import WITH_BCC
from . import worker

LIMIT_SECONDS = 300
"""For a compiler, and for bpftool: fifty times what they take, and still enough on an emulated machine."""
SAFE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED = ("LD_LIBRARY_PATH", "TMPDIR")  # where libbcc is, where bcc may write
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|MemoryError|Cannot allocate memory", re.IGNORECASE)
_CGROUPS = Path("/sys/fs/cgroup")
_SHOWN = 2000  # characters of what a process that crashed said last


@frozen
class Answer:
    """What the worker answers.

    Attributes:
        document: JSON, not looked at yet.
        said: What bcc and clang printed.
        refused: bcc refuses the source, and `said` is why.
    """

    document: Any
    said: str
    refused: bool


def environment() -> dict[str, str]:
    """What a helper gets of this process's environment: clang and Python look for files where the rest of it says."""
    return {
        "PATH": SAFE_PATH,
        "LC_ALL": "C.UTF-8",
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
    }


def ask(request: dict[str, Any], limit: float = LIMIT_SECONDS) -> Answer:
    """Compiles in a process of its own.

    Args:
        request: What `worker.compile_source` takes.
        limit: Seconds that it may take.

    Raises:
        MissingError: There is no bcc, or no process can be started.
        CompileError: The process was killed, did not end, or answered what is no JSON.
    """
    source = request["source"]
    memory = available_memory()
    command = [sys.executable, "-I", worker.__file__]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, check=False, timeout=limit,
            env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CompileError(
            f"the compiler has not come to an end within {limit:g} s of {source}, and was killed",
            "try again on a machine that is less busy, or compile elsewhere with `probekit compile`",
        ) from None
    except OSError as error:
        raise MissingError(
            f"the compiler's process cannot be started: {error.strerror} ({memory})", "`probekit check` may say more"
        ) from None
    said = outside.text(done.stderr)
    if done.returncode == worker.NO_BCC:
        raise MissingError(
            f"Python's bcc is missing: {said.strip()}",
            f"{WITH_BCC}, and make the virtual environment with --system-site-packages; the package named bcc on PyPI "
            "is something else",
        )
    if done.returncode == worker.REFUSED and not _OUT_OF_MEMORY.search(said):
        return Answer(None, said, True)
    if done.returncode:
        raise CompileError(*_death(done.returncode, said, source, memory))
    try:
        return Answer(json.loads(done.stdout), said, False)
    except (ValueError, RecursionError):
        raise CompileError(*nonsense(source, "no JSON")) from None


def nonsense(source: object, reason: str) -> tuple[str, str]:
    """What to say of an answer that is none: a message and a hint."""
    return (
        f"the compiler's process does not answer with an object of {source}: {reason}",
        "bcc, LLVM or Python may be damaged: install them again; `probekit check` shows which ones are used",
    )


def _death(status: int, said: str, source: str, memory: str) -> tuple[str, str]:
    words = _name_of(-status) if status < 0 else f"exit status {status}"
    if status == -signal.SIGKILL or _OUT_OF_MEMORY.search(said):
        return (
            f"the compiler was killed ({words}) while it compiled {source}; {memory}",
            (
                "compiling takes about 250 MB: raise the limit, or compile on another machine with `probekit compile` "
                "and run with --objects"
            ),
        )
    last = said[-_SHOWN:].strip()
    return (
        f"the compiler crashed ({words}) while it compiled {source}; {memory}" + (f"\n{last}" if last else ""),
        "take parts out of the source until it compiles, to see which one it is; a newer bcc or LLVM may know it",
    )


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def available_memory() -> str:
    """How much memory this process may still take, in words: the machine's, and its cgroup's where that has a limit."""
    parts = []
    machine = _machine_memory()
    if machine is not None:
        parts.append(f"{machine >> 20} MB of memory were available")
    limit = _cgroup_memory()
    if limit is not None:
        parts.append(f"{limit >> 20} MB within the cgroup's limit")
    return ", ".join(parts) or "how much memory was available is not known"


def _machine_memory() -> int | None:
    try:
        lines = outside.read(Path("/proc/meminfo")).splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError):
        return None


def _cgroup_memory() -> int | None:
    """The least that this cgroup and those above it still allow; None without a limit (cgroup v2 only)."""
    try:
        lines = outside.read(Path("/proc/self/cgroup")).splitlines()
    except OSError:
        return None
    own = next((line[4:] for line in lines if line.startswith("0::/")), None)
    if own is None:
        return None
    left = []
    folder = _CGROUPS / own
    while folder.is_relative_to(_CGROUPS):
        try:
            most = outside.read(folder / "memory.max").strip()
            if most != "max":
                left.append(max(int(most) - int(outside.read(folder / "memory.current")), 0))
        except (OSError, ValueError):
            pass
        folder = folder.parent
    return min(left, default=None)
