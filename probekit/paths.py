"""Where probekit's own files are."""

from __future__ import annotations

from pathlib import Path


def bpf_folder() -> Path:
    """The C sources: in the package, or in the checkout that it is installed from."""
    package = Path(__file__).parent
    installed = package / "_bpf"
    return installed if installed.is_dir() else package.parent / "bpf"
