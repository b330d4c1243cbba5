"""Files that are written whole or not at all, for their owner's eyes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import string
from collections.abc import Iterator

from ..errors import ExportError
from . import streams
from .places import Place, Refused, find, shown

_MOST_TEMPORARY = 100
_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def check_template(path: str) -> bool:
    """Whether a path has no other placeholder than {probe}."""
    try:
        parts = [part[1:] for part in string.Formatter().parse(path) if part[1] is not None]
    except ValueError:
        return False
    return bool(path) and "\0" not in path and all(part == ("probe", "", None) for part in parts)


PATH_RULE = 'a path with no other placeholder than {probe}, or "-" for standard output'
FORCE_HELP = "write to files that belong to another user, and follow other users' links"


def place(template: str, probe: str) -> str:
    """The path of one probe's file."""
    return template.format(probe=probe)


def prepare(template: str, force: bool = False) -> None:
    """Looks whether files can be written there, before anything is measured.

    Raises:
        ExportError: The folder is missing or may not be written, or what is there is not this user's.
    """
    if template == "-":
        streams.open_output()
        return
    if "{probe}" in os.path.dirname(template):  # noqa: PTH120
        return
    with told(template), find(template, force) as found:
        found.check()
        as_it_is = found.special or found.descriptor is not None
        if not as_it_is and not os.access(".", os.W_OK | os.X_OK, dir_fd=found.folder, effective_ids=True):
            folder = os.path.dirname(template) or "."  # noqa: PTH120
            raise Refused(f"the folder {shown(folder)} is not writable")


def write(path: str, text: str, force: bool = False) -> None:
    """Puts a text in place of a file's contents, or leaves the file as it was; "-" is standard output.

    A new file has mode 0600. What is no regular file (a pipe, a device, a descriptor that is open) is written to as it
    is; a reader who takes nothing for 5 s is not waited for.

    Args:
        path: Where to.
        text: All of it.
        force: Also in place of another user's file, and through links that other users made.

    Raises:
        ExportError: It cannot be written.
    """
    with told(path):
        if path == "-":
            data = streams.for_output(text)
            with streams.standard_output() as descriptor:
                streams.add(descriptor, [data])
            return
        data = text.encode(errors="replace")
        with find(path, force) as found:
            if found.descriptor is not None:
                streams.add(found.descriptor, [data])
                return
            found.check()
            if found.special:
                with closing(found.open(os.O_WRONLY)) as descriptor:
                    streams.add(descriptor, [data])
            else:
                _replace(found, data)


def is_open(path: str) -> bool:
    """Whether a path means what this process has open already, where one text would follow another: - or /dev/stdout.

    Raises:
        ExportError: As `write`.
    """
    if path == "-":
        return True
    with told(path), find(path, force=True) as found:
        return found.descriptor is not None


@contextlib.contextmanager
def told(path: str, records: int = 0, what: str = "records") -> Iterator[None]:
    """Errors about a path, as ExportErrors that name it; the OSError is their cause.

    Args:
        path: The path, or - for standard output.
        records: How many were to be written; the error says how many were not.
        what: A word for them; empty where it need not be said.
    """
    try:
        yield
    except (streams.Unwritten, Refused, OSError) as error:
        cause = error.__cause__ if isinstance(error, (streams.Unwritten, Refused)) else error
        reason = error.reason if isinstance(error, Refused) else _in_words(cause)
        missing = error.records if isinstance(error, streams.Unwritten) else records
        lost = f"; {missing} of {records} {what} were not written" if records and what else ""
        name = "standard output" if path == "-" else shown(path)
        raise ExportError(f"{name}: {reason}{lost}", error.hint if isinstance(error, Refused) else "") from cause


def _in_words(error: BaseException | None) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Closes a descriptor in the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(target: Place, data: bytes) -> None:
    name, descriptor = _temporary(target)
    with closing(descriptor):
        try:
            streams.add(descriptor, [data])
            os.fsync(descriptor)
            _rename(target, name)
        except BaseException:
            _remove(target, name)
            raise


def _rename(target: Place, name: str) -> None:
    """Gives the temporary file its name; what has come to be there in the meantime stays."""
    folder = target.folder
    if target.status is None:
        try:
            os.link(name, target.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            _remove(target, name)
            return
        except FileExistsError:
            target.now().check()
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
    os.rename(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)


def _temporary(target: Place) -> tuple[str, int]:
    """A new file beside the target, locked for as long as it is written, and its descriptor.

    What a killed run left under the same name is locked by nobody, and is removed.
    """
    for number in range(_MOST_TEMPORARY):
        name = f".{target.name}.probekit-{number}"
        with contextlib.suppress(OSError):
            _remove_left_over(target, name)
        try:
            descriptor = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target.folder)
        except FileExistsError:
            continue
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)  # another run took it for left over in the moment before it was locked
    raise FileExistsError(errno.EEXIST, f"no name for a temporary file is free ({shown(name)})")


def _remove_left_over(target: Place, name: str) -> None:
    with closing(os.open(name, _FLAGS, dir_fd=target.folder)) as descriptor:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        # who removes it, or gives it another name, holds the lock; its writer may have done so before we had it
        if ours and _lock(descriptor) and os.path.samestat(status, os.stat(name, dir_fd=target.folder)):
            _remove(target, name)


def _lock(descriptor: int) -> bool | None:
    """Whether nobody else has a file locked; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove(target: Place, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=target.folder)
