"""An object to live maps and programs, attached the best way that this kernel takes. Stage 4.

Everything is held by descriptors of this process and nothing is pinned: whatever way the process ends, the kernel
detaches and frees all of it.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

import attrs

from ..errors import AttachError, LoadError, VerifierError
from ..machine import bpf, privileges
from ..machine.kernel import PRIVILEGES, KernelFacts
from ..machine.map_types import MapType
from ..machine.privileges import missing
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
)
from . import verifier
from .gate import LENGTH, Gate

_INSTRUCTION = 8
_LOAD_IMM64 = 0x18
_PSEUDO_MAP_FD = 1
_CALL = 0x85  # BPF_JMP | BPF_CALL
_PSEUDO_KFUNC_CALL = 2
_KFUNCS = range(1024, 0x7FFFFF)  # BTF ids of functions; helpers are below, one that the kernel has not is the end
_REFUSED = "the kernel refuses the program"


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
        self._forbidden: dict[str, Refusal] = {}
        self._asked: list[tuple[AttachPoint, int]] = []
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
        self.attached = tuple(attrs.evolve(entry, before=_counted(entry)) for entry in self.attached)
        self.iterate()

    def end(self) -> None:
        """The gate has been closed: iterators, which have none, are told by the parameter `ended`."""
        if ENDED in self._plan.parameters:
            self._set_parameters({**self._plan.parameters, ENDED: 1})

    def iterate(self) -> None:
        """Runs the attached programs that have to be asked, in the plan's order one after the other."""
        self.unreached = 0
        for point, link in self._asked:
            try:
                self.unreached += point.ask(link)
            except OSError:  # no descriptor, or no memory, is left: that costs what it would have brought
                self.unlisted += 1

    def detach(self) -> None:
        """Detaches all programs; the maps stay readable."""
        self._asked.clear()
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
            refusal = self.try_point(point)
            if refusal is None:
                return Attached(observation.name, point, tuple(refused))
            refused.append(refusal)
        if observation.needed:
            ways = "\n".join(textwrap.indent(f"{r.point.way} {r.point.target}: {r.reason}", "  ") for r in refused)
            kind = VerifierError if any(r.kind is Hindrance.VERIFIER for r in refused) else AttachError
            raise kind(f"{observation.name} cannot be observed on this kernel:\n{ways}", _hint(refused), refused)
        return Attached(observation.name, None, tuple(refused))

    def try_point(self, point: AttachPoint) -> Refusal | None:
        """Attaches one program; what is against it where the kernel does not take it."""
        if point.way in self._forbidden:
            return attrs.evolve(self._forbidden[point.way], point=point)
        lacks = point.lacking(self._kernel)
        if lacks:
            return Refusal(point, lacks)
        target = 0
        if point.btf is not None:
            target = self._compiled.targets.get(point.btf.key, 0)
            if not target:
                return Refusal(point, f"this kernel has no such {point.btf.word}")
        with ExitStack() as stack:
            try:
                of_program, within = stack.enter_context(point.within())
            except OSError as error:
                return self._hindered(point, error)
            return self._load_and_attach(point, target or within, of_program)

    def _hindered(
        self, point: AttachPoint, error: OSError, says: str = "", kind: Hindrance = Hindrance.LACKING
    ) -> Refusal:
        """A refusal of the kernel; where a capability is missing that the way takes, that is the reason."""
        needs = missing(point.needs, self._kernel.capabilities)
        if isinstance(error, privileges.NotPermittedError):
            needs = missing(error.needs, self._kernel.capabilities)
        if needs and isinstance(error, PermissionError):
            return Refusal(
                point, f"not permitted: needs {' and '.join(needs)} ({error.strerror})", Hindrance.FORBIDDEN, needs
            )
        return Refusal(point, says + str(error.strerror), kind)

    def _load_and_attach(self, point: AttachPoint, target: int, of_program: int) -> Refusal | None:
        program = -1
        if point.program:
            code = self._code(point)
            try:
                program, _ = bpf.load_program(_kind(point), point.program, code, target, of_program)
            except OSError as error:
                if error.errno != errno.EPERM:
                    return self._refusal(point, code, target, of_program, error)
                # not this program is refused, but all of its kind
                self._forbidden[point.way] = self._hindered(point, error, "the kernel refuses programs of this kind: ")
                return self._forbidden[point.way]
        try:
            links = point.link(program)
        except OSError as error:
            if not point.program:
                return self._hindered(point, error)
            os.close(program)
            lacks = error.errno == bpf.ENOTSUPP  # on ARM64 before 6.4 fentry loads, and cannot be attached
            kind = Hindrance.LACKING if lacks else Hindrance.REFUSED
            return self._hindered(point, error, "the kernel refuses to attach: ", kind)
        if point.program:
            self.programs.append(program)
            self._descriptors.callback(os.close, program)
        for link in links:
            self._links.callback(os.close, link)
        self._asked += [(point, link) for link in links if point.asked]
        return None

    def _code(self, point: AttachPoint) -> bytes:
        code = self._patched(self._compiled.programs[point.program])
        return code if point.asked else self._gate.guarded(code, point.passes)

    def _refusal(self, point: AttachPoint, code: bytes, target: int, of_program: int, error: OSError) -> Refusal:
        """The verifier's reason: the program is loaded once more for its words, and once more for its instructions."""
        words, log = (
            self._log(point, code, target, of_program, level) for level in (bpf.LOG_WORDS, bpf.LOG_INSTRUCTIONS)
        )
        reason = verifier.summary(words)
        told = f"{_REFUSED}: {error.strerror}{f' ({reason})' if reason else ''}"
        details = verifier.details(self._compiled, point.program, reason, log, 0 if point.asked else LENGTH)
        return Refusal(point, told + textwrap.indent(f"\n{details}" if details else "", "  "), Hindrance.VERIFIER)

    def _log(self, point: AttachPoint, code: bytes, target: int, of_program: int, level: int) -> str:
        fd, log = bpf.load_program(_kind(point), point.program, code, target, of_program, level)
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


def _kind(point: AttachPoint) -> tuple[int, int]:
    return point.program_type, point.attach_type


def _counted(entry: Attached) -> int:
    """Of what the kernel itself counts: how often it has counted so far."""
    try:
        return entry.point.count() if entry.point is not None else 0
    except OSError:  # the device, or its program, has gone meanwhile
        return 0


def _hint(refused: list[Refusal]) -> str:
    needed = sorted({name for refusal in refused for name in refusal.needs})
    return f"run as root (sudo), or with {' and '.join(needed)}, too" if needed else ""


def _privileges(kernel: KernelFacts) -> str:
    return "" if kernel.privileged else PRIVILEGES


__all__ = ["Gate", "Loaded"]
