"""What a way of attaching has to say of itself."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

if TYPE_CHECKING:
    from ..machine.kernel import KernelFacts


@frozen
class BtfName:
    """What a program is attached to, as the kernel's BTF has it.

    Attributes:
        kind: `function` or `typedef`.
        name: Its name there.
        word: What people call it: `tracepoint`.
    """

    kind: str
    name: str
    word: str

    @property
    def key(self) -> str:
        """What its id goes by in an object."""
        return f"{self.kind}:{self.name}"


class AttachPoint(ABC):
    """One way of observing something: a program, and what it is attached to.

    A way of attaching is a frozen attrs class with this one as its base and a field `program`. `probekit.attach` has
    those of the core; a package may bring others. Data until `link` is called.

    Attributes:
        way: What it is called in configurations and output: `fentry`.
        program_type: `enum bpf_prog_type` of its programs.
        attach_type: `enum bpf_attach_type` that they expect; 0 where the type says it.
        needs: Capabilities that it takes.
        asked: The program runs whenever the sources are drained, and only then; `ask` runs it.
        passes: What a program returns before the run has begun and when it is over, as if it were not there.
    """

    way: ClassVar[str]
    program_type: ClassVar[int]
    attach_type: ClassVar[int] = 0
    needs: ClassVar[tuple[str, ...]] = ("CAP_BPF", "CAP_PERFMON")
    asked: ClassVar[bool] = False
    passes: ClassVar[int] = 0

    @property
    @abstractmethod
    def program(self) -> str:
        """The C function that is attached; empty where the kernel itself counts."""

    @property
    @abstractmethod
    def target(self) -> str:
        """What it is attached to, for people."""

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Capabilities that it takes to see other network namespaces, where it would."""
        return ()

    @property
    def btf(self) -> BtfName | None:
        """What the kernel has to be given the BTF id of, if anything."""
        return None

    def check(self) -> None:  # noqa: B027 - most ways have nothing to refuse
        """Refuses what no kernel can have, before anything is compiled.

        Raises:
            CompileError: With what to write.
        """

    def lacking(self, kernel: KernelFacts) -> str:
        """Why it cannot work on a kernel, as far as that is known before anything is loaded; else empty.

        Raises:
            AttachError: There is a mistake, such as a device that does not exist.
        """
        return ""

    @contextlib.contextmanager
    def within(self) -> Iterator[tuple[int, int]]:
        """Another program that this one is attached to, while it is loaded: its descriptor, and the BTF id there.

        Raises:
            OSError: There is none.
        """
        yield 0, 0

    @abstractmethod
    def link(self, program: int) -> Sequence[int]:
        """Attaches it.

        Args:
            program: Descriptor of the loaded program; -1 where there is none.

        Returns:
            Descriptors. To close them detaches, and so does the death of the process; nothing else may be left.

        Raises:
            OSError: The kernel refuses.
        """

    def ask(self, link: int) -> int:
        """Runs the program of an attached point that has to be asked.

        Returns:
            Network namespaces that could not be entered.

        Raises:
            OSError: It cannot be run.
        """
        return 0

    def count(self) -> int:
        """What the kernel itself has counted so far; 0 where the program does.

        Raises:
            OSError: It does not count any more.
        """
        return 0
