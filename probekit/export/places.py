"""Finding the file that a path means, without being led elsewhere by another user.

The way to it is gone step by step, each from the descriptor of the folder before: what was looked at is what is used. A
link is followed only where nobody else can have put it: it is one's own or root's, and so is the folder that it is in.
Folders may be anybody's; what is written to has to be one's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator

import attrs
from attrs import frozen

from .safe import visible
from .streams import is_writable

_STANDARD = ("__stdin__", "__stdout__", "__stderr__")
_MOST_LINKS = 40  # as the kernel
_FORCE = "remove it, name another file, or set force = true in this [[export]] table"


class Refused(Exception):  # noqa: N818
    """A place that is not written to.

    Args:
        reason: Why; it follows on the path.
        hint: What the user can do about it.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@frozen
class Place:
    """Where a path leads.

    Attributes:
        folder: A descriptor of the folder.
        name: The file's name in it.
        status: What is there; None where nothing is.
        descriptor: The path means a descriptor that this process has open (/dev/stdout), which it only borrows.
        force: What is another user's is written to as well.
    """

    folder: int
    name: str
    status: os.stat_result | None
    descriptor: int | None
    force: bool

    @property
    def special(self) -> bool:
        """Whether it is something that is written to as it is: a pipe, a device."""
        return self.status is not None and not stat.S_ISREG(self.status.st_mode)

    def now(self) -> Place:
        """The same place, looked at again."""
        return attrs.evolve(self, status=_look(self.folder, self.name))

    def open(self, flags: int) -> int:
        """Opens it, without waiting for a reader; makes a file of mode 0600 where nothing is.

        Args:
            flags: O_WRONLY or O_RDWR, and further ones.

        Raises:
            Refused: It is another user's, or nobody reads.
            OSError: It cannot be opened, or is another file by now.
        """
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if self.status is None:
            try:
                return os.open(self.name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder)
            except FileExistsError:
                return self.now().open(flags)
        self.check()
        try:
            descriptor = os.open(self.name, flags, dir_fd=self.folder)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise Refused(f"nobody reads this {'socket' if stat.S_ISSOCK(self.status.st_mode) else 'pipe'}") from error
        try:
            opened = os.fstat(descriptor)
            if not os.path.samestat(opened, self.status):
                raise OSError(errno.ESTALE, "another file has taken its place a moment ago")
            if opened.st_nlink > 1 and not self.force and not trusted(os.fstat(self.folder)):
                raise Refused("has other names as well (hard links), and is in a folder of another user", _FORCE)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def check(self) -> None:
        """Looks whether what is there may be written to.

        Raises:
            Refused: It is a folder, or another user's.
        """
        if self.status is None:
            return
        mode = self.status.st_mode
        if stat.S_ISDIR(mode):
            raise Refused("is a folder")
        device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)  # those nobody but root makes
        if not device and not self.force and self.status.st_uid != os.geteuid():
            raise Refused(f"belongs to user {self.status.st_uid}, and this is user {os.geteuid()}", _FORCE)


@contextlib.contextmanager
def find(path: str, force: bool = False) -> Iterator[Place]:
    """Goes to where a path leads.

    Raises:
        Refused: A folder is missing, or a link on the way is another user's.
        OSError: A folder cannot be looked at.
    """
    folder = _start(path)
    left = _parts(path)
    links = 0
    try:
        while True:
            name = left.pop() if left else "."
            if not left and name.isdecimal() and _is_descriptors(folder):
                yield Place(folder, name, None, _open_descriptor(int(name)), force)
                return
            status = _look(folder, name)
            if status is not None and stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = _read_link(folder, name, force)
                left += _parts(target)
                if target.startswith("/"):
                    os.close(folder)
                    folder = _start("/")
            elif left:
                if status is None:
                    raise Refused(f"the folder {shown(os.path.dirname(path))} does not exist")  # noqa: PTH120
                inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = inner
            else:
                yield Place(folder, name, status, None, force)
                return
    finally:
        os.close(folder)


def shown(path: str) -> str:
    """A path for a message: whatever it is made of."""
    return visible(path)


def trusted(status: os.stat_result) -> bool:
    """Whether nobody but this user and root can have made it."""
    return status.st_uid in (0, os.geteuid())


def _start(path: str) -> int:
    return os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _parts(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _read_link(folder: int, name: str, force: bool) -> str:
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(link)
        target = os.readlink("", dir_fd=link)
        for what, owned in (("it", status), ("its folder", os.fstat(folder))):
            if not force and not trusted(owned):
                raise Refused(
                    f"leads through the link {shown(name)} to {shown(target)}; {what} belongs to user {owned.st_uid}",
                    "name the file that it leads to, or set force = true in this [[export]] table",
                )
        return target
    finally:
        os.close(link)


def _is_descriptors(folder: int) -> bool:
    """Whether a folder is /proc/self/fd, whose links lead to what is open rather than to where their text says."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat("/proc/self/fd"))  # noqa: PTH116
    except OSError:
        return False


def _open_descriptor(number: int) -> int:
    if number < len(_STANDARD) and getattr(sys, _STANDARD[number]) is None:  # what has the number now is something else
        raise Refused("is closed")
    try:
        closed = not is_writable(number) and number in (1, 2)
    except OSError as error:
        raise Refused("is closed") from error
    if closed:
        raise Refused("is closed")
    return number
