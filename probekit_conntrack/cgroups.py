"""Names of cgroups: the kernel calls them by number, people by path."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from probekit import host
from probekit.host import Machine


class Cgroups:
    """Paths of cgroups (of the hierarchy of version 2) by number; those seen once are remembered.

    Args:
        machine: Is asked for them.
        roots: Where that hierarchy is mounted; by default wherever the kernel says.
    """

    def __init__(self, machine: Machine, roots: Iterable[str] | None = None) -> None:
        self._machine = machine
        self._roots = tuple(machine.ask(mounted) if roots is None else roots)
        self._paths: dict[int, str] = {0: ""}

    def paths(self, numbers: set[int]) -> dict[int, str]:
        """The path of each; its number where there is no such cgroup any more, or it may not be looked at."""
        for root in self._roots:
            if not numbers <= self._paths.keys():
                self._paths |= dict(self._machine.ask(walked, root))
        return {number: self._paths.setdefault(number, f"#{number}") for number in numbers}


def mounted() -> list[str]:
    """Where the hierarchy is mounted."""
    return [str(path) for path in host.mounts("cgroup2")]


def walked(root: str) -> list[list[Any]]:
    """Number and path of each cgroup below a folder."""
    found = []
    for folder, _, _ in os.walk(root):
        number = host.inode(Path(folder))
        if number is not None:
            found.append([number, "/" + host.text(str(Path(folder).relative_to(root))).removeprefix(".")])
    return found
