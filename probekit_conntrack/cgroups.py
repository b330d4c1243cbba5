"""Names of cgroups: the kernel calls them by number, people by path."""

from __future__ import annotations

import os
from pathlib import Path


class Cgroups:
    """Paths of cgroups (of the hierarchy of version 2) by number; those seen once are remembered."""

    def __init__(self) -> None:
        self._root = _mounted()
        self._paths: dict[int, str] = {0: ""}

    def paths(self, numbers: set[int]) -> dict[int, str]:
        """The path of each; its number where there is no such cgroup any more."""
        if self._root is not None and not numbers <= self._paths.keys():
            for folder, _, _ in os.walk(self._root):
                try:
                    number = Path(folder).stat().st_ino
                except OSError:
                    continue
                self._paths[number] = "/" + str(Path(folder).relative_to(self._root)).removeprefix(".")
        return {number: self._paths.setdefault(number, f"#{number}") for number in numbers}


def _mounted() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    return None
