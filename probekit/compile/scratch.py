"""Folders and files that are there while something is made, and are cleaned up by the next start where that was killed.

Each is locked (flock) by the process that made it. The kernel lets go of the lock with the process, whatever ended it
and in whatever PID namespace it was, so that what can be locked is nobody's any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ..machine import trust

_PREFIX = "probekit-new-"
_OURS = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}(\.damaged)?")
_OLDER = re.compile(r"tmp[a-z0-9_]{8}")  # what probekit 0.1 left in its cache, without a lock
_OLD_SECONDS = 3600
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


def fresh_name() -> str:
    """A name that `sweep` knows."""
    return _PREFIX + secrets.token_hex(8)


def claim(descriptor: int) -> bool:
    """Says that what is being made is somebody's, until the descriptor is closed; False where it is another's."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN  # a file system without locks: there age alone counts
    return True


@contextlib.contextmanager
def folder(inside: Path) -> Iterator[Path]:
    """A new folder of this process, removed at the end where it still has its name.

    Args:
        inside: Where to make it.

    Raises:
        OSError: It cannot be made there.
    """
    path, descriptor = _claimed(inside)
    try:
        yield path
    finally:
        remove(path)
        os.close(descriptor)


def _claimed(inside: Path) -> tuple[Path, int]:
    """A new folder and what holds its lock; a sweep of another process may come between making and claiming it."""
    while True:
        path = inside / fresh_name()
        path.mkdir(mode=0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if claim(descriptor) and path.exists():
            return path, descriptor
        os.close(descriptor)


def sweep(inside: Path) -> None:
    """Removes what killed processes of this user left in a folder."""
    with contextlib.suppress(OSError), os.scandir(inside) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                _remove_if_nobodys(Path(entry.path), 0)
            elif _OLDER.fullmatch(entry.name) and inside.name == "probekit":
                _remove_if_nobodys(Path(entry.path), _OLD_SECONDS)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it; what is not there is no fault."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _remove_if_nobodys(path: Path, age: float) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if trust.is_ours(status) and time.time() - status.st_mtime >= age and _is_nobodys(descriptor, status):
            remove(path)
    finally:
        os.close(descriptor)


def _is_nobodys(descriptor: int, status: os.stat_result) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN and time.time() - status.st_mtime > _OLD_SECONDS
    return True
