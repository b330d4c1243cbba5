"""Tracepoints as tracefs has them: those of single system calls, too, and each with a struct of its own."""

import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen
from probekit import AttachPoint, KernelFacts

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_TRACEPOINT, _CLOSE_ON_EXEC = 2, 8
_ENABLE, _SET_BPF = 0x2400, 0x40042408  # PERF_EVENT_IOC_
_SIZE = 128  # of struct perf_event_attr, as far as kernels since 5.10 know it


@frozen
class Classic(AttachPoint):
    """A tracepoint of tracefs: the program gets the struct `trace_event_raw_NAME`.

    Attributes:
        group: `syscalls`.
        name: `sys_enter_openat`.
        program: The C function.
    """

    way: ClassVar[str] = "classic tracepoint"
    program_type: ClassVar[int] = 5
    needs: ClassVar[tuple[str, ...]] = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN")  # the last one for tracefs

    group: str
    name: str
    program: str

    @property
    def target(self) -> str:
        """`group:name`."""
        return f"{self.group}:{self.name}"

    def lacking(self, kernel: KernelFacts) -> str:
        """Whether the machine is one whose system calls have the numbers known here."""
        return "" if kernel.machine in _PERF_EVENT_OPEN else f"its system calls are not known on {kernel.machine}"

    def link(self, program: int) -> Sequence[int]:
        """Attaches it by a perf event."""
        attributes = struct.pack("=IIQ", _TRACEPOINT, _SIZE, self._number()).ljust(_SIZE, b"\0")
        event = _call(_PERF_EVENT_OPEN[os.uname().machine], attributes, -1, 0, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
        try:
            fcntl.ioctl(event, _SET_BPF, program)
            fcntl.ioctl(event, _ENABLE, 0)
        except BaseException:
            os.close(event)
            raise
        return [event]

    def _number(self) -> int:
        """From tracefs, by a mount that nobody else sees."""
        context = _call(_FSOPEN, b"tracefs", 1)
        try:
            _call(_FSCONFIG, context, 6, None, None, 0)
            mount = _call(_FSMOUNT, context, 1, 0)
        finally:
            os.close(context)
        try:
            file = os.open(f"events/{self.group}/{self.name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)
        with open(file) as number:
            return int(number.read())


def _call(number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
