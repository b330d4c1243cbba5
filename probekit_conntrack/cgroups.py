"""Names of cgroups: the kernel calls them by number, people by path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from probekit import host


class Cgroups:
    """Paths of cgroups (of the hierarchy of version 2) by number; those seen once are remembered.

    Args:
        roots: Where that hierarchy is mounted; by default wherever the kernel says.
    """

    def __init__(self, roots: Iterable[Path] | None = None) -> None:
        self._roots = tuple(host.mounts("cgroup2") if roots is None else roots)
        self._paths: dict[int, str] = {0: ""}

    def paths(self, numbers: set[int]) -> dict[int, str]:
        """The path of each; its number where there is no such cgroup any more, or it may not be looked at."""
        for root in self._roots:
            if not numbers <= self._paths.keys():
                self._walk(root)
        return {number: self._paths.setdefault(number, f"#{number}") for number in numbers}

    def _walk(self, root: Path) -> None:
        for folder, _, _ in os.walk(root):
            number = host.inode(Path(folder))
            if number is not None:
                self._paths[number] = "/" + host.text(str(Path(folder).relative_to(root))).removeprefix(".")
