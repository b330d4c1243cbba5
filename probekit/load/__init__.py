"""An object to live maps and programs, attached the best way that this kernel takes. Stages 4 and 5.

Everything is held by descriptors of this process and nothing is pinned: whatever way the process ends, the kernel
detaches and frees all of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import ExitStack
from types import TracebackType

from .. import bpf
from ..errors import AttachError, LoadError
from ..kernel import PRIVILEGES, KernelFacts
from ..model import Attached, AttachPlan, AttachPoint, LiveMap, MapSpec, Object, Refusal, Way

_INSTRUCTION = 8
_LOAD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1
_NAMED = {Way.TRACEPOINT: "tracepoint", Way.FENTRY: "fentry", Way.FEXIT: "fentry"}  # what their targets' ids go by
_OF_DEVICE = (Way.XDP, Way.XDP_EXIT, Way.XDP_RUNS, Way.TCX_INGRESS, Way.TCX_EGRESS)
LAYOUT = "_layout"
"""A map of this ending is never made: the C source has it to describe the records of the ring buffer before it."""


class Loaded:
    """The live maps and programs of one plan; a context manager that leaves nothing behind.

    Attributes:
        maps: Live maps by name.
        attached: How each observation was attached, in the plan's order.
        programs: Descriptors of the attached programs.
    """

    def __init__(self, compiled: Object, plan: AttachPlan, kernel: KernelFacts) -> None:
        self.maps: dict[str, LiveMap] = {}
        self.attached: tuple[Attached, ...] = ()
        self.programs: list[int] = []
        self._compiled = compiled
        self._plan = plan
        self._kernel = kernel
        self._forbidden: dict[Way, str] = {}
        self._before: dict[AttachPoint, int] = {}
        self._links = ExitStack()
        self._descriptors = ExitStack()

    def __enter__(self) -> Loaded:
        """Makes the maps.

        Raises:
            LoadError: The kernel refuses one.
        """
        layouts = {spec.name: spec for spec in self._compiled.maps if spec.name.endswith(LAYOUT)}
        try:
            for spec in self._compiled.maps:
                if spec.name not in layouts:
                    self.maps[spec.name] = self._make_map(spec, layouts.get(spec.name + LAYOUT, spec))
        except BaseException:
            self._descriptors.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detaches and frees everything."""
        self.detach()
        self._descriptors.close()

    def attach(self) -> None:
        """Attaches every observation the first way that works.

        Raises:
            AttachError: Something needed cannot be observed here; it names every way and the reason against it.
        """
        self.attached = tuple(self._attach(o.name, o.points, o.needed, o.without) for o in self._plan.observations)

    def detach(self) -> None:
        """Detaches all programs; the maps stay readable."""
        self._links.close()

    def missed(self) -> int:
        """Events that no program saw because it was running on that CPU already."""
        return sum(bpf.program_info(fd)["missed"] for fd in self.programs)

    def _make_map(self, spec: MapSpec, layout: MapSpec) -> LiveMap:
        ring = spec.type == bpf.MAP_TYPE_RINGBUF
        sizes = (0, 0) if ring else (spec.key_size, spec.value_size)
        try:
            fd = bpf.create_map(spec.type, spec.name, *sizes, spec.max_entries, spec.flags)
        except OSError as error:
            raise LoadError(
                f"the kernel refuses the map {spec.name} ({spec.max_entries} entries): {error.strerror}",
                _privileges(self._kernel) if isinstance(error, PermissionError) else "",
            ) from None
        self._descriptors.callback(os.close, fd)
        return LiveMap(spec, fd, layout.value)

    def _attach(self, name: str, points: tuple[AttachPoint, ...], needed: bool, without: str) -> Attached:
        refused: list[Refusal] = []
        for point in points:
            reason = self.try_point(point)
            if reason is None:
                return Attached(name, point, tuple(refused), self._before.get(point, 0))
            refused.append(Refusal(point, reason))
        if needed:
            ways = "\n".join(f"  {r.point.way.value} {r.point.target}: {r.reason}" for r in refused)
            raise AttachError(f"{name} cannot be observed on this kernel:\n{ways}", _privileges(self._kernel))
        return Attached(name, None, tuple(refused))

    def try_point(self, point: AttachPoint) -> str | None:
        """Attaches one program; the reason where the kernel does not take it."""
        if point.way in self._forbidden:
            return self._forbidden[point.way]
        target = of_program = 0
        if point.way is Way.KPROBE:
            if not self._kernel.kprobes:
                return "this kernel has no kprobes"
        elif point.way in _NAMED:
            target = self._compiled.targets.get(f"{_NAMED[point.way]}:{point.target}", 0)
            if not target:
                what = "tracepoint" if point.way is Way.TRACEPOINT else "function"
                return f"this kernel has no such {what}"
        elif point.way in _OF_DEVICE:
            self._find_device(point.target)
        if point.way is Way.XDP_RUNS:
            return self._count_runs(point)
        if point.way is Way.XDP_EXIT:
            try:
                of_program, target = bpf.xdp_program(point.target)
            except OSError as error:
                return f"{error.strerror}"
        try:
            return self._load_and_attach(point, target, of_program)
        finally:
            if of_program:
                os.close(of_program)

    def _count_runs(self, point: AttachPoint) -> str | None:
        try:
            self._before[point] = bpf.xdp_runs(point.target)
            self._links.callback(os.close, bpf.enable_stats())
        except OSError as error:
            return f"{error.strerror}"
        return None

    def _find_device(self, name: str) -> None:
        """A device that is not there is no fact about the kernel, but a mistake.

        Raises:
            AttachError: It is not there.
        """
        try:
            socket.if_nametoindex(name)
        except OSError:
            raise AttachError(f"there is no device {name} in this network namespace", "`ip link` lists them") from None

    def _load_and_attach(self, point: AttachPoint, target: int, of_program: int) -> str | None:
        code = self._patched(self._compiled.programs[point.program])
        try:
            program, _ = bpf.load_program(point.way, point.program, code, target, of_program)
        except OSError as error:
            if error.errno != errno.EPERM:
                return self._refusal(point, code, target, of_program, error)
            # not this program is refused, but all of its kind
            self._forbidden[point.way] = f"the kernel refuses programs of this kind: {error.strerror}"
            return self._forbidden[point.way]
        try:
            if point.way is Way.NETFILTER:
                links = bpf.attach_to_hooks(program, point.target)
            else:
                links = [bpf.attach(point.way, program, point.target)]
        except OSError as error:
            os.close(program)
            return f"the kernel refuses to attach: {error.strerror}"
        self.programs.append(program)
        self._descriptors.callback(os.close, program)
        for link in links:
            self._links.callback(os.close, link)
        return None

    def _refusal(self, point: AttachPoint, code: bytes, target: int, of_program: int, error: OSError) -> str:
        """The verifier's reason: the program is loaded once more, with its log."""
        fd, log = bpf.load_program(point.way, point.program, code, target, of_program, log=True)
        if fd >= 0:
            os.close(fd)
        return f"the kernel refuses the program: {error.strerror}{_last_words(log)}"

    def _patched(self, code: bytes) -> bytes:
        """The instructions with the descriptors of the live maps."""
        live = {m.spec.placeholder: m.fd for m in self.maps.values()}
        patched = bytearray(code)
        for at in range(0, len(code), _INSTRUCTION):
            if code[at] == _LOAD_IMM64 and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
                (placeholder,) = struct.unpack_from("=i", code, at + 4)
                struct.pack_into("=i", patched, at + 4, live[placeholder])
        return bytes(patched)


def _last_words(log: str) -> str:
    lines = [line for line in log.splitlines() if line and not line.startswith(("processed ", "verification time"))]
    return f" ({lines[-1].strip()})" if lines else ""


def _privileges(kernel: KernelFacts) -> str:
    return "" if kernel.privileged else PRIVILEGES


__all__ = ["Loaded"]
