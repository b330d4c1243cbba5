"""What several ways of attaching have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..machine import bpf
from ..model import AttachPoint

NETWORK = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")  # programs of ours read kernel memory, which takes the last one


class Traced(AttachPoint):
    """A program that is loaded for what it is attached to, by its BTF id: BPF_PROG_TYPE_TRACING."""

    program_type: ClassVar[int] = 26

    def link(self, program: int) -> Sequence[int]:
        """Attaches it."""
        return [bpf.open_traced(program)]
