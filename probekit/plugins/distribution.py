"""The name that probekit is installed by, and somebody else's package that has the name one would think of."""

from __future__ import annotations

import importlib.metadata

from ..words import printable

NAME = "probekit-ebpf"
"""The distribution; the import package and the command are `probekit`."""

STRANGER = "probekit"
"""On PyPI this is somebody else's distribution, whose files go to the folder of our import package."""

REMEDY = f"pip uninstall {STRANGER}; pip install --force-reinstall --no-deps {NAME}"


def stranger() -> str:
    """What is installed under the name that is not ours; empty where nothing is."""
    try:
        found = importlib.metadata.distribution(STRANGER)
    except importlib.metadata.PackageNotFoundError:
        return ""
    # asking `metadata` itself for what is not there warns from Python 3.12 on, and will be a KeyError
    summary = str(found.metadata.json.get("summary") or "without a description")
    return (
        f"the package {STRANGER} {printable(found.version)} is installed ({printable(summary)}): it is not this one, "
        f"which is {NAME}, and its files replace this one's"
    )
