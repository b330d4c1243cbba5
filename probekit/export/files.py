"""Files that are written whole or not at all, for their owner's eyes."""

from __future__ import annotations

import os
import stat
import string
import sys
import tempfile
from pathlib import Path

from ..errors import ExportError


def check_template(path: str) -> bool:
    """Whether a path has no other placeholder than {probe}."""
    try:
        parts = [part[1:] for part in string.Formatter().parse(path) if part[1] is not None]
    except ValueError:
        return False
    return bool(path) and all(part == ("probe", "", None) for part in parts)


PATH_RULE = 'a path with no other placeholder than {probe}, or "-" for standard output'


def place(template: str, probe: str) -> str:
    """The path of one probe's file."""
    return template.format(probe=probe)


def prepare(template: str) -> None:
    """Looks whether files can be written there, before anything is measured.

    Raises:
        ExportError: The folder is missing, or may not be written.
    """
    path = Path(template)
    folder = path.parent
    if template == "-" or "{probe}" in str(folder):
        return
    if path.is_dir():
        raise ExportError(f"{template}: is a folder")
    if _is_special(path):
        return
    if not folder.is_dir():
        raise ExportError(f"{template}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise ExportError(f"{template}: the folder {folder} may not be written")


def write(path: str, text: str) -> None:
    """Puts a text in place of a file's contents, or leaves the file as it was; "-" is standard output.

    A new file has mode 0600. What is no regular file (a pipe, a device) is written to as it is.

    Raises:
        ExportError: It cannot be written.
    """
    try:
        if path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        elif _is_special(Path(path)):
            with Path(path).open("w", encoding="utf-8") as file:
                file.write(text)
        else:
            _replace(Path(path), text)
    except OSError as error:
        raise ExportError(f"{'standard output' if path == '-' else path}: {error.strerror}") from error


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _replace(path: Path, text: str) -> None:
    path = path.resolve()
    file = tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    try:
        with file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise
