"""Network namespaces: which there are, and doing something inside of one.

What the kernel shows of sockets and of their settings is that of the network namespace of whoever asks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from . import outside

OWN = Path("/proc/self/ns/net")
_PROCESSES = Path("/proc")
_NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
_CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


def number_of(path: Path) -> int:
    """The inode of a namespace, which is what the kernel calls it by.

    Raises:
        OSError: There is no such file, or it is no namespace's.
    """
    try:
        found, own = path.stat(), OWN.stat()
    except ValueError:  # a name with a zero in it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    if found.st_dev != own.st_dev:
        if os.path.samestat(found, path.parent.stat()):  # so 5.10 leads whoever may not look at a process
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        raise OSError(errno.EINVAL, "it is no namespace's file", str(path))
    return found.st_ino


@frozen
class Survey:
    """Network namespaces.

    Attributes:
        found: A way into each that a process is in or a file is kept for, by its number; ours comes first.
        refused: Processes that this one may not look at: they may be in others.
    """

    found: Mapping[int, Path]
    refused: int


def survey() -> Survey:
    """Looks for network namespaces."""
    found: dict[int, Path] = {}
    refused = 0
    for path in (OWN, *_candidates()):
        try:
            found.setdefault(number_of(path), path)
        except PermissionError:
            refused += 1
        except OSError:  # the process is gone, the file is another kind's
            continue
    return Survey(found, refused)


def everywhere() -> Mapping[int, Path]:
    """A way into each network namespace, by its number."""
    return survey().found


def _candidates() -> Iterator[Path]:
    for folder in outside.entries(_PROCESSES):
        if folder.name.isdecimal():
            yield folder / "ns/net"
    for folder in _NAMED:
        yield from outside.entries(folder)


def inside(path: Path, do: Callable[[], Result]) -> Result:
    """Calls a function in a thread that is in a network namespace.

    Raises:
        OSError: The namespace is gone, or may not be entered.
    """
    if number_of(path) == number_of(OWN):
        return do()
    results: list[Result] = []
    errors: list[BaseException] = []

    def enter_and_do() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _set_namespace(descriptor)
            finally:
                os.close(descriptor)
            results.append(do())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter_and_do, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
