"""What a source of a probe's data has to say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from .batch import Batch

if TYPE_CHECKING:
    from .batch import Array
    from .object import LiveMap, MapSpec


class Reader(Protocol):
    """Reads one source."""

    def read(self) -> Batch | None:
        """What is there now; of what is delivered once, what came since; None where that is nothing."""

    def close(self) -> None:
        """Lets go of what it holds."""


class Source(ABC):
    """Where a probe's data comes from: a map that is read into batches.

    A kind of source is a frozen attrs class with this one as its base and a field `name`. `probekit.drain` has those of
    the core; a package may bring others.

    Attributes:
        types: `enum bpf_map_type` of maps that it can be.
        declaration: How such a map is declared in C, with `{name}`.
        keyed: A batch has the fields `key` and `value`; otherwise it is of the map's values.
        described: The values' layout is that of the map `NAME_layout`, as of a ring buffer.
    """

    types: ClassVar[frozenset[int]]
    declaration: ClassVar[str]
    keyed: ClassVar[bool] = False
    described: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The map's name in the C source, which batches carry."""

    @classmethod
    def fits(cls, spec: MapSpec) -> bool:
        """Whether it can be this map."""
        return spec.type in cls.types

    def check(self, spec: MapSpec) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuses a map of the right type that cannot be read, when it was compiled.

        Raises:
            CompileError: With what to declare.
        """

    @abstractmethod
    def zeros(self, live: LiveMap, cpus: int, rows: int) -> Array:
        """Data of a batch in which all is 0.

        Args:
            live: The map.
            cpus: Possible CPUs.
            rows: How many, where that is not the map's size.
        """

    @abstractmethod
    def open(self, live: LiveMap, cpus: int) -> Reader:
        """Begins to read the live map.

        Args:
            live: The map.
            cpus: Possible CPUs.

        Raises:
            LoadError: The map is not what the source is read as.
            OSError: The kernel does not let it be read.
        """
