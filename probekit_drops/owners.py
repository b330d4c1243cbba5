"""Whose sockets and namespaces they are, as the machine names them when a snapshot is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probekit import host
from probekit.host import Machine

NETNS_FOLDER = Path("/run/netns")
PROCESSES = Path("/proc")
_CAPABILITIES = ("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")  # for other users' /proc/PID/fd, and its links


def namespaces(folder: Path = NETNS_FOLDER) -> list[list[Any]]:
    """Inode number and name of each network namespace that `ip netns` has."""
    found = ((host.inode(path), host.text(path.name)) for path in host.entries(folder))
    return [[number, name] for number, name in found if number is not None]


class Owners:
    """Who holds sockets, found once for each.

    Args:
        machine: Is asked for them.
        folder: A folder for each process.

    Attributes:
        refused: Processes that this one had no right to look into, when a socket was looked for that nobody else holds.
        lacking: What gives the right to look into all processes, and this one has not.
    """

    def __init__(self, machine: Machine, folder: Path = PROCESSES) -> None:
        self.refused = 0
        self.lacking = tuple(machine.ask(_lacked, folder))
        self._machine = machine
        self._folder = folder
        self._known: dict[int, tuple[int, str]] = {}

    def of(self, inodes: set[int]) -> dict[int, tuple[int, str]]:
        """Process id and command name of those who hold sockets; one that nobody holds any more is left out."""
        unknown = inodes - set(self._known) - {0}
        if unknown:
            held, refused = self._machine.ask(holders, self._folder, sorted(unknown))
            self._known = {**{inode: (pid, name) for inode, pid, name in held}, **self._known}
            if not unknown <= set(self._known):
                self.refused = max(self.refused, refused)
        return {inode: self._known[inode] for inode in inodes if inode in self._known}


def _lacked(folder: Path) -> list[str]:
    return list(host.lacked(_CAPABILITIES, folder / "self/status"))


def holders(folder: Path, inodes: list[int]) -> list[Any]:
    """Who holds sockets.

    Args:
        folder: A folder for each process.
        inodes: The sockets.

    Returns:
        A list of inode, process id and command name, and how many processes could not be looked into.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    held: dict[int, list[Any]] = {}
    refused = 0
    for process in host.entries(folder):
        if not process.name.isdecimal():
            continue
        descriptors = list(host.entries(process / "fd"))
        links = [host.link(descriptor) for descriptor in descriptors]
        for inode in {wanted[link] for link in links if link in wanted}:
            held.setdefault(inode, [inode, int(process.name), _name(process)])
        if not any(links):
            refused += any(host.refused(path) for path in (process / "fd", *descriptors[:1]))
    return [list(held.values()), refused]


def _name(process: Path) -> str:
    try:
        return host.read(process / "comm").removesuffix("\n")
    except OSError:  # it has ended
        return ""
