"""The kernel's functions by address, from /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..machine import outside
from ..model import Array

KALLSYMS = Path("/proc/kallsyms")
MODULES = Path("/proc/modules")
HIDDEN = "(hidden)"
UNKNOWN = "(unknown)"
_CODE = "tTwW"


class Symbols:
    """Names addresses. The kernel's list is read when a new address is asked for, and modules have come or gone.

    An address itself is never given away: whoever reads the output need not be allowed to know where the kernel is.

    Args:
        path: Lines of address, kind, name and, for a module's, the module in brackets.
        modules: What changes with the modules that are loaded; a kernel without modules has no such file.

    Attributes:
        hidden: Whether an address was asked for whose name the kernel hides from this process (kptr_restrict).
    """

    def __init__(self, path: Path = KALLSYMS, modules: Path = MODULES) -> None:
        self.hidden = False
        self._path = path
        self._modules = modules
        self._loaded: str | None = None
        self._starts: Array | None = None
        self._names: list[str] = []
        self._known: dict[int, tuple[str, int]] = {}

    def function(self, address: int) -> tuple[str, int]:
        """The function that a return address is in, and how far.

        Returns:
            Name and offset. `(hidden)` and 0 where the kernel hides addresses from this process, `(unknown)` and 0 for
            one that is before every function.
        """
        if address not in self._known:
            self._known[address] = self._find(address)
        return self._known[address]

    def text(self, address: int) -> str:
        """`ip_forward+0x1c4`."""
        return function_text(*self.function(address))

    def read(self) -> Array:
        """Reads the kernel's list where that was not done since modules came or went; it takes a tenth of a second.

        Returns:
            Where functions begin, in order; all 0 where the kernel hides that.
        """
        loaded = _contents(self._modules)
        if self._starts is None or loaded != self._loaded:
            self._starts = self._parsed()
            self._loaded = loaded
        return self._starts

    def _find(self, address: int) -> tuple[str, int]:
        starts = self.read()
        if not starts.any():
            self.hidden = True
            return HIDDEN, 0
        # a call may be a function's last instruction, and its return address the next function's first
        place = int(np.searchsorted(starts, max(address - 1, 0), "right")) - 1
        if place < 0 or not starts[place]:
            return UNKNOWN, 0
        return self._names[place], address - int(starts[place])

    def _parsed(self) -> Array:
        starts, names = [], []
        for line in _contents(self._path).splitlines():
            head, _, rest = line.partition(" ")
            if rest[:1] and rest[0] in _CODE:
                starts.append(int(head, 16))
                names.append(rest[2:].split(maxsplit=1)[0])
        order = np.argsort(np.array(starts, np.uint64), kind="stable")
        self._names = [names[place] for place in order.tolist()]
        ordered: Array = np.array(starts, np.uint64)[order]
        return ordered


def function_text(name: str, offset: int) -> str:
    """`ip_forward+0x1c4`: a function, and how far in it."""
    return f"{name}+{offset:#x}" if offset else name


def _contents(path: Path) -> str:
    try:
        return outside.read(path)
    except OSError:  # hidden from this process, too
        return ""
