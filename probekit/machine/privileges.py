"""Which capabilities the kernel asks for, and what is missing without them (capabilities(7))."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from . import outside

_STATUS = Path("/proc/self/status")

NUMBERS = {
    "CAP_DAC_READ_SEARCH": 2, "CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24,
    "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39,
}  # fmt: skip
WITHOUT = {
    "CAP_SYSLOG": "no names of kernel functions, which /proc/kallsyms has",
    "CAP_SYS_PTRACE": "no sockets of other users' processes are found in /proc, nor which process owns one",
    "CAP_DAC_READ_SEARCH": "no sockets of other users' processes are found in /proc, nor which process owns one",
    "CAP_SYS_ADMIN": "nothing that was there before the run in other network namespaces, and no runs of others' XDP "
    "programs",
    "CAP_NET_ADMIN": "no programs for XDP, TC, netfilter and sockets",
    "CAP_SYS_RESOURCE": "before 5.11 maps count against `ulimit -l`",
}
"""What a run lacks without each; what no run can do without is not among them."""
_INCLUDED = {"CAP_BPF", "CAP_PERFMON"}  # in CAP_SYS_ADMIN


def effective(status: Path = _STATUS) -> frozenset[str]:
    """Capabilities of `NUMBERS` that a process has.

    Args:
        status: What the kernel says of it, as /proc/PID/status.

    Raises:
        OSError: That may not be read.
        ValueError: It does not say.
    """
    lines = dict(line.split(":", 1) for line in outside.read(status).splitlines() if ":" in line)
    held = int(lines.get("CapEff", ""), 16)
    return frozenset(name for name, bit in NUMBERS.items() if held >> bit & 1)


def lacked(names: Collection[str], status: Path = _STATUS) -> tuple[str, ...]:
    """Which of these capabilities this process has not, such as `CAP_SYSLOG`; none where it cannot be found out.

    Args:
        names: Of `NUMBERS`.
        status: What the kernel says of the process, as /proc/PID/status.
    """
    try:
        held = effective(status)
    except (OSError, ValueError):
        return ()
    return missing(names, held)


class NotPermittedError(PermissionError):
    """The kernel refuses for want of capabilities that the way of attaching alone does not tell.

    Args:
        error: What the kernel said.
        needs: Those capabilities.
    """

    def __init__(self, error: OSError, *needs: str) -> None:
        super().__init__(error.errno, error.strerror)
        self.needs = needs


def missing(needed: Collection[str], capabilities: Collection[str]) -> tuple[str, ...]:
    """What of these capabilities this process has not."""
    all_of = "CAP_SYS_ADMIN" in capabilities
    return tuple(name for name in needed if name not in capabilities and not (all_of and name in _INCLUDED))
