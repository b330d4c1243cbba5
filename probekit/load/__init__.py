"""An object to live maps and programs, attached the best way that this kernel takes. Stages 4 and 5.

Everything is held by descriptors of this process and nothing is pinned: whatever way the process ends, the kernel
detaches and frees all of it.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
import sys
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

import attrs

from ..errors import AttachError, LoadError, VerifierError
from ..machine import bpf, namespaces, privileges
from ..machine.kernel import PRIVILEGES, KernelFacts
from ..machine.map_types import MapType
from ..machine.privileges import lacking, missing
from ..model import (  # fmt: skip
    ENDED,
    LAYOUT,
    Attached,
    AttachPlan,
    AttachPoint,
    Hindrance,
    LiveMap,
    MapSpec,
    Object,
    Observation,
    Refusal,
    Way,
)
from . import verifier
from .gate import Gate, added

_INSTRUCTION = 8
_LOAD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1
_CALL = 0x85  # BPF_JMP | BPF_CALL
_PSEUDO_KFUNC_CALL = 2
_KFUNCS = range(1024, 0x7FFFFF)  # BTF ids of functions; helpers are below, one that the kernel has not is the end
_REFUSED = "the kernel refuses the program"
_NAMED = {  # what their targets' ids go by
    Way.TRACEPOINT: "tracepoint", Way.FENTRY: "fentry", Way.FEXIT: "fentry", Way.ITERATOR: "iterator",
}  # fmt: skip
_KINDS = {"tracepoint": "tracepoint", "fentry": "function", "iterator": "iterator"}
_OF_DEVICE = (Way.XDP, Way.XDP_EXIT, Way.XDP_RUNS, Way.TCX_INGRESS, Way.TCX_EGRESS)


class Loaded:
    """The live maps and programs of one plan; a context manager that leaves nothing behind.

    Attributes:
        maps: Live maps by name.
        attached: How each observation was attached, in the plan's order.
        programs: Descriptors of the attached programs.
        unreached: Network namespaces that the last run of the iterators could not enter.
        unlisted: Runs of iterators that failed.

    Args:
        compiled: The object.
        plan: What it was compiled for.
        kernel: Facts.
        gate: Closed while programs are attached; whoever opens it calls `begin`.
    """

    def __init__(self, compiled: Object, plan: AttachPlan, kernel: KernelFacts, gate: Gate) -> None:
        self.maps: dict[str, LiveMap] = {}
        self.attached: tuple[Attached, ...] = ()
        self.programs: list[int] = []
        self._compiled = compiled
        self._plan = plan
        self._kernel = kernel
        self._gate = gate
        self._forbidden: dict[Way, Refusal] = {}
        self._iterators: list[tuple[int, bool]] = []
        self.unreached = 0
        self.unlisted = 0
        self._missed_before = 0
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
            self._set_parameters(self._plan.parameters)
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
        self.attached = tuple(self._attach(observation) for observation in self._plan.observations)

    def begin(self) -> None:
        """The gate has just been opened: what the kernel counts itself is counted from here on."""
        self._missed_before = self._missed()
        self.attached = tuple(attrs.evolve(entry, before=_runs_before(entry)) for entry in self.attached)
        self.iterate()

    def end(self) -> None:
        """The gate has been closed: iterators, which have none, are told by the parameter `ended`."""
        if ENDED in self._plan.parameters:
            self._set_parameters({**self._plan.parameters, ENDED: 1})

    def iterate(self) -> None:
        """Runs the attached iterators, those of the plan's order one after the other."""
        self.unreached = 0
        everywhere = namespaces.everywhere() if any(each for _, each in self._iterators) else {}
        for link, per_namespace in self._iterators:
            if not per_namespace:
                self._iterate(link)
                continue
            for path in everywhere.values():
                try:
                    namespaces.inside(path, functools.partial(bpf.iterate, link))
                except OSError:
                    self.unreached += path.exists()

    def _iterate(self, link: int) -> None:
        try:
            bpf.iterate(link)
        except OSError:  # no descriptor, or no memory, is left: that costs what it would have brought
            self.unlisted += 1

    def detach(self) -> None:
        """Detaches all programs; the maps stay readable."""
        self._iterators.clear()
        self._links.close()

    def missed(self) -> int:
        """Events that no program saw because it was running on that CPU already."""
        return self._missed() - self._missed_before

    def _missed(self) -> int:
        return sum(bpf.program_info(fd)["missed"] for fd in self.programs)

    def _make_map(self, spec: MapSpec, layout: MapSpec) -> LiveMap:
        sizes = (0, 0) if spec.type == MapType.RINGBUF else (spec.key_size, spec.value_size)
        try:
            fd = bpf.create_map(spec.type, spec.name, *sizes, spec.max_entries, spec.flags)
        except OSError as error:
            raise LoadError(
                f"the kernel refuses the map {spec.name} ({spec.max_entries} entries): {error.strerror}",
                _privileges(self._kernel) if isinstance(error, PermissionError) else "",
            ) from None
        self._descriptors.callback(os.close, fd)
        return LiveMap(spec, fd, layout.value)

    def _set_parameters(self, parameters: Mapping[str, int]) -> None:
        """Fills the map `parameters`, whose fields are whole numbers."""
        if not parameters:
            return
        live = self.maps["parameters"]
        value = bytearray(live.spec.value_size)
        places = dict(
            zip(live.value["names"], zip(live.value["formats"], live.value["offsets"], strict=True), strict=True)
        )
        for name, number in parameters.items():
            layout, offset = places[name]
            size = int(layout[2:])
            value[offset : offset + size] = number.to_bytes(size, sys.byteorder, signed=layout[1] == "i")
        bpf.update(live.fd, bytes(live.spec.key_size), bytes(value))

    def _attach(self, observation: Observation) -> Attached:
        refused: list[Refusal] = []
        for point in observation.points:
            refusal = self.try_point(point, observation.per_namespace)
            if refusal is None:
                return Attached(observation.name, point, tuple(refused))
            refused.append(refusal)
        if observation.needed:
            ways = "\n".join(
                textwrap.indent(f"{r.point.way.value} {r.point.target}: {r.reason}", "  ") for r in refused
            )
            kind = VerifierError if any(r.kind is Hindrance.VERIFIER for r in refused) else AttachError
            raise kind(f"{observation.name} cannot be observed on this kernel:\n{ways}", _hint(refused), refused)
        return Attached(observation.name, None, tuple(refused))

    def try_point(self, point: AttachPoint, per_namespace: bool = False) -> Refusal | None:
        """Attaches one program; what is against it where the kernel does not take it.

        Args:
            point: What to attach.
            per_namespace: Of an iterator: it is going to be run in each network namespace.
        """
        if point.way in self._forbidden:
            return attrs.evolve(self._forbidden[point.way], point=point)
        target = of_program = 0
        if point.way is Way.KPROBE:
            if not self._kernel.kprobes:
                return Refusal(point, "this kernel has no kprobes")
        elif point.way in _NAMED:
            target = self._compiled.targets.get(f"{_NAMED[point.way]}:{point.target}", 0)
            if not target:
                return Refusal(point, f"this kernel has no such {_KINDS[_NAMED[point.way]]}")
        elif point.way in _OF_DEVICE:
            self._find_device(point.target)
        if point.way is Way.XDP_RUNS:
            return self._count_runs(point)
        if point.way is Way.XDP_EXIT:
            try:
                of_program, target = bpf.xdp_program(point.target)
            except OSError as error:
                return self._hindered(point, error)
        try:
            return self._load_and_attach(point, target, of_program, per_namespace)
        finally:
            if of_program:
                os.close(of_program)

    def _count_runs(self, point: AttachPoint) -> Refusal | None:
        try:
            bpf.xdp_runs(point.target)
            self._links.callback(os.close, bpf.enable_stats())
        except OSError as error:
            return self._hindered(point, error)
        return None

    def _hindered(
        self, point: AttachPoint, error: OSError, says: str = "", kind: Hindrance = Hindrance.LACKING
    ) -> Refusal:
        """A refusal of the kernel; where a capability is missing that the way takes, that is the reason."""
        needs = lacking(point.way, self._kernel.capabilities)
        if isinstance(error, privileges.NotPermittedError):
            needs = missing(error.needs, self._kernel.capabilities)
        if needs and isinstance(error, PermissionError):
            return Refusal(
                point, f"not permitted: needs {' and '.join(needs)} ({error.strerror})", Hindrance.FORBIDDEN, needs
            )
        return Refusal(point, says + str(error.strerror), kind)

    def _find_device(self, name: str) -> None:
        """A device that is not there is no fact about the kernel, but a mistake.

        Raises:
            AttachError: It is not there.
        """
        try:
            socket.if_nametoindex(name)
        except OSError:
            raise AttachError(f"there is no device {name} in this network namespace", "`ip link` lists them") from None

    def _load_and_attach(self, point: AttachPoint, target: int, of_program: int, per_namespace: bool) -> Refusal | None:
        code = self._gate.guarded(point.way, self._patched(self._compiled.programs[point.program]))
        try:
            program, _ = bpf.load_program(point.way, point.program, code, target, of_program)
        except OSError as error:
            if error.errno != errno.EPERM:
                return self._refusal(point, code, target, of_program, error)
            # not this program is refused, but all of its kind
            self._forbidden[point.way] = self._hindered(point, error, "the kernel refuses programs of this kind: ")
            return self._forbidden[point.way]
        try:
            if point.way is Way.NETFILTER:
                links = bpf.attach_to_hooks(program, point.target)
            else:
                links = [bpf.attach(point.way, program, point.target)]
        except OSError as error:
            os.close(program)
            lacks = error.errno == bpf.ENOTSUPP  # on ARM64 before 6.4 fentry loads, and cannot be attached
            kind = Hindrance.LACKING if lacks else Hindrance.REFUSED
            return self._hindered(point, error, "the kernel refuses to attach: ", kind)
        self.programs.append(program)
        self._descriptors.callback(os.close, program)
        for link in links:
            self._links.callback(os.close, link)
        if point.way is Way.ITERATOR:
            self._iterators += [(link, per_namespace) for link in links]
        return None

    def _refusal(self, point: AttachPoint, code: bytes, target: int, of_program: int, error: OSError) -> Refusal:
        """The verifier's reason: the program is loaded once more for its words, and once more for its instructions."""
        words, log = (
            self._log(point, code, target, of_program, level) for level in (bpf.LOG_WORDS, bpf.LOG_INSTRUCTIONS)
        )
        reason = verifier.summary(words)
        told = f"{_REFUSED}: {error.strerror}{f' ({reason})' if reason else ''}"
        details = verifier.details(self._compiled, point.program, reason, log, added(point.way))
        return Refusal(point, told + textwrap.indent(f"\n{details}" if details else "", "  "), Hindrance.VERIFIER)

    def _log(self, point: AttachPoint, code: bytes, target: int, of_program: int, level: int) -> str:
        fd, log = bpf.load_program(point.way, point.program, code, target, of_program, level)
        if fd >= 0:
            os.close(fd)
        return log

    def _patched(self, code: bytes) -> bytes:
        """The instructions with the descriptors of the live maps, and calls of kernel functions marked as such."""
        live = {m.spec.placeholder: m.fd for m in self.maps.values()}
        patched = bytearray(code)
        for at in range(0, len(code), _INSTRUCTION):
            if code[at] == _LOAD_IMM64 and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
                (placeholder,) = struct.unpack_from("=i", code, at + 4)
                struct.pack_into("=i", patched, at + 4, live[placeholder])
            elif code[at] == _CALL and struct.unpack_from("=i", code, at + 4)[0] in _KFUNCS:
                patched[at + 1] = _PSEUDO_KFUNC_CALL << 4
        return bytes(patched)


def _runs_before(entry: Attached) -> int:
    """Of what the kernel itself counts: how often it has counted so far."""
    if entry.point is None or entry.point.way is not Way.XDP_RUNS:
        return 0
    try:
        return bpf.xdp_runs(entry.point.target)
    except OSError:  # the device, or its program, has gone meanwhile
        return 0


def _hint(refused: list[Refusal]) -> str:
    needed = sorted({name for refusal in refused for name in refusal.needs})
    return f"run as root (sudo), or with {' and '.join(needed)}, too" if needed else ""


def _privileges(kernel: KernelFacts) -> str:
    return "" if kernel.privileged else PRIVILEGES


__all__ = ["Gate", "Loaded"]
