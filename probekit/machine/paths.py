"""Where probekit's own files are."""

from __future__ import annotations

from pathlib import Path


def bpf_folder() -> Path:
    """The C sources: in the package, or in the checkout that it is installed from."""
    package = Path(__file__).parents[1]
    installed = package / "_bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def source_line(file: str, line: int) -> str:
    """A line of a C source; empty where the file is not there, because the object was made elsewhere.

    Args:
        file: Its path.
        line: From 1.
    """
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()[line - 1]
    except (OSError, IndexError):
        return ""
