"""Whom files belong to: what others than this user and root can change is neither loaded nor run."""

from __future__ import annotations

import grp
import os
import pwd
import site
import stat
import sys
from pathlib import Path

from ..errors import MissingError
from . import outside

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_ours(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write it."""
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE


def opened(folder: Path) -> int:
    """A descriptor of a folder that is ours, whatever its path leads to a moment later.

    Raises:
        OSError: There is none, or its path ends in a link.
        PermissionError: It belongs to somebody else, or others may write it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not is_ours(os.fstat(descriptor)):
        os.close(descriptor)
        raise PermissionError(f"{folder} can be written by others than user {os.geteuid()}")
    return descriptor


def changeable(path: Path) -> str:
    """Where on the way to a folder others than this user and root could put something else in its place.

    The way is gone from descriptor to descriptor, so that nothing changes between one look and the next.

    Args:
        path: Absolute. Links in it are followed first.

    Returns:
        The first such folder and why, in words; empty where there is none.
    """
    at = os.open("/", _FOLDER)
    reached = Path("/")
    try:
        for part in ("", *Path(os.path.realpath(path)).parts[1:]):
            if part:
                following = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at, reached = following, reached / part
            fault = _fault(os.fstat(at))
            if fault:
                return f"{outside.text(str(reached))} {fault}"
    finally:
        os.close(at)
    return ""


def may_run(program: Path) -> bool:
    """Whether a program is a file that only this user and root can change, and may be run."""
    try:
        real = Path(os.path.realpath(program))
        status = real.stat()
        fault = "" if stat.S_ISREG(status.st_mode) else "no file"
        return not (fault or _fault(status) or changeable(real.parent)) and os.access(real, os.X_OK)
    except OSError:
        return False


def refuse_foreign_packages() -> None:
    """Refuses to go on where Python has loaded packages, and run their .pth files, from another user's home.

    Raises:
        MissingError: It has: HOME was that of another user when Python was started.
    """
    folder = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    if folder not in sys.path:
        return
    fault = changeable(Path(folder))
    if fault:
        raise MissingError(
            f"Python looks for packages in {folder}, as HOME says, and {fault}",
            "leave that out: PYTHONNOUSERSITE=1, or `sudo -H`, which sets HOME to root's",
        )


def _fault(status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX  # nobody moves what is another's
    if sticky or not status.st_mode & _WRITABLE:
        return ""
    if status.st_mode & stat.S_IWOTH or not _is_private(status.st_gid, status.st_uid):
        return "can be written by others"
    return ""


def _is_private(group: int, user: int) -> bool:
    """Whether a group is the user's own, as most distributions make one for each user."""
    try:
        entry = grp.getgrgid(group)
        return entry.gr_name == pwd.getpwuid(user).pw_name and not set(entry.gr_mem) - {entry.gr_name}
    except KeyError:
        return False
