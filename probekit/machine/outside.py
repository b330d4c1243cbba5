"""What comes from outside the process: names, links and files that are bytes, and may be gone, dangling or unreadable.

Nothing that the machine's users can name is known to be UTF-8, and what was there a moment ago need not be any more.
Whoever looks at /proc, cgroups, mounts, namespaces or devices does it here: a fault costs a name, never a result.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def text(raw: bytes | str) -> str:
    """Bytes as text; what is not UTF-8 becomes replacement characters.

    Args:
        raw: Bytes, or what Python made of a file's name: bytes that are no UTF-8 are surrogates there.
    """
    if isinstance(raw, str):
        raw = raw.encode(errors="surrogateescape")
    return raw.decode(errors="replace")


def read(path: Path) -> str:
    """A file's contents as `text` has them.

    Raises:
        OSError: It is gone, or may not be read.
    """
    return text(path.read_bytes())


def entries(folder: Path) -> Iterator[Path]:
    """What is in a folder; nothing where that is gone or may not be listed."""
    try:
        found = list(folder.iterdir())
    except OSError:
        return
    yield from found


def mounts(kind: str, table: Path = _MOUNTS) -> Iterator[Path]:
    """Where file systems of a kind are mounted; nothing where that may not be read.

    Args:
        kind: Such as `cgroup2`.
        table: What the kernel says of it, a line each: blanks and backslashes in names are octal (proc_pid_mounts(5)).
    """
    try:
        lines = table.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        fields = line.split(b" ")
        if len(fields) > 2 and fields[2] == kind.encode():
            yield Path(os.fsdecode(_ESCAPED.sub(lambda octal: bytes([int(octal[1], 8) & 255]), fields[1])))


def inode(path: Path) -> int | None:
    """The inode number that a path leads to; None where it leads nowhere any more."""
    try:
        return path.stat().st_ino
    except (OSError, ValueError):
        return None


def link(path: Path) -> str:
    """Where a link leads, as `text` has it; empty where there is none."""
    try:
        return text(str(path.readlink()))
    except (OSError, ValueError):
        return ""


def refused(path: Path) -> bool:
    """Whether this process has no right to see where a link leads, or what is in a folder."""
    try:
        if path.is_symlink():
            path.readlink()
        else:
            next(path.iterdir(), None)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return False
