"""Programs whose arguments have BTF types: BPF_PROG_TYPE_TRACING."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from ..errors import CompileError
from ..machine import bpf, namespaces
from ..model import BtfName
from .common import Traced

_QUALIFIED = re.compile(r"(?:\w+[:/])+(\w+)")
_SYSTEM_CALL = re.compile(r"sys_(enter|exit)_\w+")


@frozen
class Tracepoint(Traced):
    """A raw tracepoint: the program gets what its TP_PROTO lists as ctx[0], ctx[1] and so on.

    Attributes:
        name: The kernel's own: `tcp_probe`.
        program: The C function.
    """

    way: ClassVar[str] = "tracepoint"
    attach_type: ClassVar[int] = 23

    name: str
    program: str

    @property
    def target(self) -> str:
        """The tracepoint's name."""
        return self.name

    @property
    def btf(self) -> BtfName:
        """Its prototype."""
        return BtfName("typedef", f"btf_trace_{self.name}", "tracepoint")

    def check(self) -> None:
        """Refuses names that tracefs has, and not the kernel.

        Raises:
            CompileError: With the name to write.
        """
        qualified = _QUALIFIED.fullmatch(self.name)
        name = qualified[1] if qualified else self.name
        call = _SYSTEM_CALL.fullmatch(name)
        if call:
            number = "ctx[1] is the system call's number" if call[1] == "enter" else "ctx[1] is what it returns"
            raise CompileError(
                f"{self.name} is no raw tracepoint: single system calls have none, tracefs only shows them as if",
                f"attach to sys_{call[1]}, which is run for every system call: {number}, ctx[0] the struct pt_regs",
            )
        if qualified:
            raise CompileError(
                f"{self.name} is a tracepoint's name in tracefs; the kernel's own is without the group before it",
                f'Tracepoint("{name}", ...); the program gets what TP_PROTO lists as ctx[0], ctx[1] and so on',
            )


@frozen
class Fentry(Traced):
    """The beginning of a kernel function.

    Attributes:
        function: The function.
        program: The C function; it gets the arguments as ctx[0], ctx[1] and so on.
    """

    way: ClassVar[str] = "fentry"
    attach_type: ClassVar[int] = 24

    function: str
    program: str

    @property
    def target(self) -> str:
        """The function's name."""
        return self.function

    @property
    def btf(self) -> BtfName:
        """The function."""
        return BtfName("function", self.function, "function")


@frozen
class Fexit(Fentry):
    """The end of a kernel function: what it returns comes after its arguments.

    Attributes:
        function: The function.
        program: The C function.
    """

    way: ClassVar[str] = "fexit"
    attach_type: ClassVar[int] = 25


@frozen
class Iterator(Traced):
    """The kernel calls the program with each of its objects, whenever the sources are drained.

    Attributes:
        objects: What kind of objects: `tcp`, `task_file`.
        program: The C function.
        per_namespace: They are those of one network namespace, so that it is run in each.
    """

    way: ClassVar[str] = "iterator"
    attach_type: ClassVar[int] = 28
    asked: ClassVar[bool] = True

    objects: str
    program: str
    per_namespace: bool = False

    @property
    def target(self) -> str:
        """The kind of objects."""
        return self.objects

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """What entering a network namespace takes."""
        return ("CAP_SYS_ADMIN",) if self.per_namespace else ()

    @property
    def btf(self) -> BtfName:
        """The function that describes the iterator."""
        return BtfName("function", f"bpf_iter_{self.objects}", "iterator")

    def link(self, program: int) -> Sequence[int]:
        """Attaches it; nothing runs yet."""
        return [bpf.attach_iterator(program)]

    def ask(self, link: int) -> int:
        """Goes through the objects."""
        if not self.per_namespace:
            bpf.iterate(link)
            return 0
        unreached = 0
        for path in namespaces.everywhere().values():
            try:
                namespaces.inside(path, lambda: bpf.iterate(link))
            except OSError:
                unreached += path.exists()
        return unreached
