"""Programs at kernel functions by breakpoint or ftrace: BPF_PROG_TYPE_KPROBE."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from ..machine import bpf
from ..machine.kernel import KPROBE_PMU, KernelFacts
from ..model import AttachPoint


@frozen
class Kprobe(AttachPoint):
    """The beginning of a kernel function, where the program gets the registers.

    Attributes:
        function: The function.
        program: The C function.
    """

    way: ClassVar[str] = "kprobe"
    program_type: ClassVar[int] = 2

    function: str
    program: str

    @property
    def target(self) -> str:
        """The function's name."""
        return self.function

    def lacking(self, kernel: KernelFacts) -> str:
        """Whether the kernel has kprobes at all."""
        return "" if kernel.kprobes else "this kernel has no kprobes"

    def link(self, program: int) -> Sequence[int]:
        """Attaches it by a perf event."""
        if not KPROBE_PMU.exists():  # the older way, through tracefs, would outlive the process
            raise OSError(errno.EOPNOTSUPP, "its kprobes would outlive the process (before 4.17)")
        return [bpf.attach_kprobe(program, self.function)]
