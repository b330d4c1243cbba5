"""Compiled objects and header trees on disk, private to their owner.

An entry is written whole or not at all. What does not belong to us, what others may write, what is cut short or changed
is not loaded but made again: its instructions would run in the kernel.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import cattrs
from attrs import frozen

from ..errors import MissingError
from ..model import Object

_converter = cattrs.Converter()
_converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode())
_converter.register_structure_hook(bytes, lambda value, _: base64.b64decode(value, validate=True))


def default_folder() -> Path:
    """Where objects are kept: below XDG_CACHE_HOME, else /var/cache for root, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base, "probekit")
    return Path("/var/cache/probekit") if os.geteuid() == 0 else Path.home() / ".cache" / "probekit"


def _ours(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


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
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the cache folder {self.folder} cannot be made: {error.strerror}", "set XDG_CACHE_HOME"
            ) from None
        if not _ours(self.folder, stat.S_ISDIR):
            raise MissingError(
                f"the cache folder {self.folder} can be written by others than user {os.geteuid()}",
                "remove it, or set XDG_CACHE_HOME to a folder of your own",
            )

    def load(self, key: str, compiler: str | None = None) -> Object | None:
        """The object of a key, or None where it has to be made.

        Args:
            key: What it was made from.
            compiler: Which bcc it has to be of; None where that does not matter.
        """
        path = self._path(key)
        if not _ours(self.folder, stat.S_ISDIR) or not _ours(path, stat.S_ISREG):
            return None
        try:
            found = decode(path.read_bytes(), key)
        except (OSError, ValueError):
            return None
        return found if compiler in (None, found.compiler) else None

    def store(self, compiled: Object) -> None:
        """Keeps an object.

        Raises:
            MissingError: It cannot be written.
        """
        try:
            self._write(self._path(compiled.key), encode(compiled))
        except OSError as error:
            raise MissingError(f"nothing can be kept in {self.folder}: {error.strerror}") from error

    def _write(self, path: Path, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            try:
                file.write(content)
                file.flush()
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink()
                raise

    def tree(self, key: str, make: Callable[[Path], None]) -> Path:
        """The header tree of a key, made where it is not there yet."""
        path = self.folder / f"headers-{key}"
        if _ours(path, stat.S_ISDIR):
            return path
        fresh = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            make(fresh)
            fresh.replace(path)
        except OSError:
            if not _ours(path, stat.S_ISDIR):  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return path

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.object"


def encode(compiled: Object) -> bytes:
    """An object as a file: a digest, a line feed, JSON."""
    body = json.dumps(_converter.unstructure(compiled)).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes, key: str) -> Object:
    """The object of a file.

    Raises:
        ValueError: It is not whole, or not of this key.
    """
    digest, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("damaged")
    found = _converter.structure(json.loads(body), Object)
    if found.key != key:
        raise ValueError("of another key")
    return found
