"""Compiled objects and header trees on disk, private to their owner.

An entry is written whole or not at all. What does not belong to us, what others may write, what is cut short, changed
or nonsense is not loaded but made again: its instructions would run in the kernel. What is checked is what was opened.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from ..errors import MissingError
from ..machine import trust
from ..model import Object
from . import contents, scratch

_MANIFEST = "manifest"
_TOO_LARGE = 1 << 28  # bytes of an object's file; those of the largest probes have some 200 kB
_UNUSED_SECONDS = 30 * 86400
_TOUCHED_SECONDS = 86400
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def default_folder() -> Path:
    """Where objects are kept: below XDG_CACHE_HOME, else /var/cache for root, else ~/.cache.

    Raises:
        MissingError: It is not known where this user's home is.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base, "probekit")
    if os.geteuid() == 0:
        return Path("/var/cache/probekit")
    try:
        return Path.home() / ".cache" / "probekit"
    except RuntimeError:
        raise MissingError(f"user {os.geteuid()} has no home for a cache", "set XDG_CACHE_HOME") from None


@frozen
class Cache:
    """A folder of objects.

    Attributes:
        folder: It is made with mode 0700.
    """

    folder: Path

    def prepare(self) -> None:
        """Makes the folder.

        Raises:
            MissingError: It cannot be made, or belongs to somebody else.
        """
        try:
            for parent in reversed(self.folder.parents):
                if not parent.exists():  # whatever the umask: only we may put something into them
                    parent.mkdir(mode=0o755, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the cache folder {self.folder} cannot be made: {error.strerror}", "set XDG_CACHE_HOME"
            ) from None
        try:
            os.close(trust.opened(self.folder))
        except OSError:
            raise MissingError(
                f"the cache folder {self.folder} can be written by others than user {os.geteuid()}",
                "remove it, or set XDG_CACHE_HOME to a folder of your own",
            ) from None

    def refuse_foreign_parents(self) -> None:
        """Refuses a folder in whose place somebody else could put another one.

        Raises:
            MissingError: A folder on the way to it is another user's, or may be written by others.
        """
        try:
            fault = trust.changeable(self.folder.absolute().parent)
        except OSError as error:
            fault = f"{error.filename} cannot be looked at: {error.strerror}"
        if fault:
            raise MissingError(
                f"the cache folder {self.folder} is not safe: {fault}",
                "set XDG_CACHE_HOME to a folder that only you and root can change",
            )

    def load(self, key: str, compiler: str | None = None) -> Object | None:
        """The object of a key, or None where it has to be made.

        Args:
            key: What it was made from.
            compiler: Which bcc it has to be of; None where that does not matter.
        """
        try:
            with self._opened() as folder:
                found = decode(_read_ours(f"{key}.object", folder), key)
                _touch(f"{key}.object", folder)
        except (OSError, ValueError):
            return None
        return found if compiler in (None, found.compiler) else None

    def has(self, key: str) -> bool:
        """Whether there is a file for a key, whatever is in it."""
        return os.path.lexists(self.folder / f"{key}.object")

    def store(self, compiled: Object) -> None:
        """Keeps an object.

        Raises:
            MissingError: It cannot be written.
        """
        try:
            with self._opened() as folder:
                _write(f"{compiled.key}.object", encode(compiled), folder)
        except OSError as error:
            raise MissingError(f"cannot write to the cache folder {self.folder}: {error.strerror}") from error

    def tree(self, key: str, make: Callable[[Path], None]) -> Path:
        """The header tree of a key, made where it is not there yet or not whole any more.

        Raises:
            OSError: It cannot be kept.
        """
        path = self.folder / f"headers-{key}"
        if _is_whole(path):
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)
            return path
        with scratch.folder(self.folder) as fresh:
            make(fresh)
            if _is_whole(path):  # another process was faster
                return path
            (fresh / _MANIFEST).write_text(_manifest(fresh))
            damaged = self.folder / f"{fresh.name}.damaged"
            with contextlib.suppress(FileNotFoundError):
                path.replace(damaged)
            scratch.remove(damaged)
            try:
                fresh.replace(path)
            except OSError:
                if not _is_whole(path):
                    raise
        return path

    def remove_unused(self) -> None:
        """Removes what was not used for a month."""
        for path in [*self.folder.glob("*.object"), *self.folder.glob("headers-*")]:
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime > _UNUSED_SECONDS:
                    scratch.remove(path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        folder = trust.opened(self.folder)
        try:
            yield folder
        finally:
            os.close(folder)


def _read_ours(name: str, folder: int) -> bytes:
    descriptor = os.open(name, _READ, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not trust.is_ours(status):
            raise PermissionError(errno.EPERM, "not ours")
        if status.st_size > _TOO_LARGE:
            raise ValueError("too large")
        return file.read()


def _write(name: str, content: bytes, folder: int) -> None:
    fresh = scratch.fresh_name()
    descriptor = os.open(fresh, _CREATE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            scratch.claim(descriptor)
            file.write(content)
            file.flush()
            os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=folder)
        raise


def _touch(name: str, folder: int) -> None:
    """Notes that an entry is in use, once a day."""
    with contextlib.suppress(OSError):
        if abs(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime - time.time()) > _TOUCHED_SECONDS:
            os.utime(name, dir_fd=folder, follow_symlinks=False)


def _is_whole(tree: Path) -> bool:
    try:
        os.close(trust.opened(tree))
        return (tree / _MANIFEST).read_text() == _manifest(tree)
    except (OSError, ValueError):
        return False


def _manifest(tree: Path) -> str:
    """Every file of a tree with a digest of its contents."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and path != tree / _MANIFEST)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)


def encode(compiled: Object) -> bytes:
    """An object as a file: a digest, a line feed, JSON."""
    body = json.dumps(contents.to_json(compiled)).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes, key: str) -> Object:
    """The object of a file.

    Raises:
        ValueError: It is not whole, not of this key, or no object.
    """
    digest, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("damaged")
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deep") from None
    found = contents.from_json(document)
    if found.key != key:
        raise ValueError("of another key")
    return found
