"""Programs at network devices: XDP and TC."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import ClassVar

from attrs import frozen

from ..errors import AttachError
from ..machine import bpf
from ..machine.kernel import KernelFacts
from ..model import AttachPoint
from .common import NETWORK, Traced

_BEFORE = 1 << 3  # BPF_F_BEFORE: in front of all others


@frozen
class _OfDevice(AttachPoint):
    device: str
    program: str

    @property
    def target(self) -> str:
        """The device's name."""
        return self.device

    def lacking(self, kernel: KernelFacts) -> str:
        """A device that is not there is no fact about the kernel, but a mistake.

        Raises:
            AttachError: It is not there.
        """
        try:
            socket.if_nametoindex(self.device)
        except OSError:
            raise AttachError(
                f"there is no device {self.device} in this network namespace", "`ip link` lists them"
            ) from None
        return ""


@frozen
class Xdp(_OfDevice):
    """A device that has no XDP program.

    Attributes:
        device: Its name.
        program: The C function.
    """

    way: ClassVar[str] = "xdp"
    program_type: ClassVar[int] = 6
    attach_type: ClassVar[int] = 37
    needs: ClassVar[tuple[str, ...]] = NETWORK
    passes: ClassVar[int] = 2  # XDP_PASS

    def link(self, program: int) -> Sequence[int]:
        """Attaches it."""
        return [bpf.create_link(program, socket.if_nametoindex(self.device), self.attach_type)]


@frozen
class XdpExit(_OfDevice, Traced):
    """The end of the XDP program that a device has: what it returns comes after its argument.

    Attributes:
        device: Its name.
        program: The C function.
    """

    way: ClassVar[str] = "xdp exit"
    attach_type: ClassVar[int] = 25
    needs: ClassVar[tuple[str, ...]] = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN")  # for BPF_PROG_GET_FD_BY_ID

    @contextlib.contextmanager
    def within(self) -> Iterator[tuple[int, int]]:
        """The device's program."""
        other, target = bpf.xdp_program(self.device)
        try:
            yield other, target
        finally:
            os.close(other)


@frozen
class XdpRuns(_OfDevice):
    """No program of ours: the kernel counts how often the XDP program of a device runs.

    Attributes:
        device: Its name.
        program: Empty.
    """

    way: ClassVar[str] = "xdp runs"
    needs: ClassVar[tuple[str, ...]] = ("CAP_SYS_ADMIN",)

    program: str = ""

    def link(self, program: int) -> Sequence[int]:
        """Has the kernel count runs of all programs."""
        bpf.xdp_runs(self.device)
        return [bpf.enable_stats()]

    def count(self) -> int:
        """Runs of the device's program."""
        return bpf.xdp_runs(self.device)


@frozen
class TcxIngress(_OfDevice):
    """What a device received, before every other TC program there.

    Attributes:
        device: Its name.
        program: The C function.
    """

    way: ClassVar[str] = "tcx ingress"
    program_type: ClassVar[int] = 3
    attach_type: ClassVar[int] = 46
    needs: ClassVar[tuple[str, ...]] = NETWORK
    passes: ClassVar[int] = -1  # TCX_NEXT

    def link(self, program: int) -> Sequence[int]:
        """Attaches it."""
        device = socket.if_nametoindex(self.device)
        return [bpf.create_link(program, device, self.attach_type, _BEFORE, bytes(16))]


@frozen
class TcxEgress(TcxIngress):
    """What a device is going to send, before every other TC program there.

    Attributes:
        device: Its name.
        program: The C function.
    """

    way: ClassVar[str] = "tcx egress"
    attach_type: ClassVar[int] = 47
