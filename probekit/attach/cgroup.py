"""Programs at the sockets of cgroups: BPF_PROG_TYPE_CGROUP_SKB."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from ..machine import bpf
from ..model import AttachPoint
from .common import NETWORK


@frozen
class CgroupIngress(AttachPoint):
    """What sockets of a cgroup and all below receive.

    Attributes:
        folder: The cgroup's, of version 2; `/` for the root, wherever it is mounted.
        program: The C function.
    """

    way: ClassVar[str] = "cgroup ingress"
    program_type: ClassVar[int] = 8
    needs: ClassVar[tuple[str, ...]] = NETWORK
    passes: ClassVar[int] = 1

    folder: str
    program: str

    @property
    def target(self) -> str:
        """The cgroup's folder."""
        return self.folder

    def link(self, program: int) -> Sequence[int]:
        """Attaches it."""
        opened = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        folder = bpf.cgroup_root() if self.folder == "/" else os.open(self.folder, opened)
        try:
            return [bpf.create_link(program, folder, self.attach_type)]
        finally:
            os.close(folder)
