"""The values that pass between the stages: frozen, without behaviour, and the only thing that all stages import.

config -> plan -> compile -> load -> attach -> drain -> decode -> aggregate -> export
  RunConfig  AttachPlan  Object   LiveMap  Attached   Batch   Columns   Figures     Snapshot
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:  # programs are attached before NumPy is imported, which takes longer than all the rest
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


LAYOUT = "_layout"
"""A map of this ending is never made: the C source has it to describe the records of the ring buffer before it."""


class Way(str, enum.Enum):
    """A way of attaching a program to the kernel."""

    FENTRY = "fentry"
    FEXIT = "fexit"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"  # a raw tracepoint whose arguments have BTF types
    XDP = "xdp"  # on a device that has no XDP program
    XDP_EXIT = "xdp exit"  # at the end of the XDP program that a device has
    XDP_RUNS = "xdp runs"  # no program of ours: the kernel counts how often the device's runs
    TCX_INGRESS = "tcx ingress"  # before every other program there
    TCX_EGRESS = "tcx egress"
    NETFILTER = "netfilter"  # a function at hooks of this network namespace
    CGROUP_INGRESS = "cgroup ingress"  # at the sockets of a cgroup and all below
    ITERATOR = "iterator"  # the kernel calls the program with each of its objects whenever the sources are drained


@frozen
class AttachPoint:
    """One way of observing something.

    Attributes:
        way: How the program is attached.
        target: The kernel's name of the function, tracepoint or kind of object; of XDP and TC the device's; of
            netfilter FAMILIES/HOOKS/PRIORITY in numbers, with commas between several; of a cgroup its folder, / for the
            root.
        program: The C function that is attached; empty where the kernel itself counts.
    """

    way: Way
    target: str
    program: str


@frozen
class Observation:
    """Something to observe, with the ways of doing so, best first.

    Attributes:
        name: A word for it, shown to users.
        points: Alternatives; the first one that works on this kernel is taken.
        needed: Without it the probe cannot run; otherwise `without` is what is lost.
        without: What the figures lack where no alternative works.
        per_namespace: An iterator goes through the objects of one network namespace, and is run in each.
    """

    name: str
    points: tuple[AttachPoint, ...]
    needed: bool = True
    without: str = ""
    per_namespace: bool = False


class SourceKind(str, enum.Enum):
    """How a map is drained."""

    RING = "ring"  # records, each delivered once
    TABLE = "table"  # a mappable array of slots: the live ones, as they are now
    PERCPU = "percpu"  # a per-CPU array: shape (CPUs, entries), as they are now
    HASH = "hash"  # a hash: fields `key` and `value`, as they are now


@frozen
class Source:
    """A map that the probe's data comes from.

    Attributes:
        map: The map's name in the C source; batches carry it.
        kind: How it is drained.
        live: For a table: the field that is 0, in all its elements, where the slot is free.
    """

    map: str
    kind: SourceKind
    live: str = ""


@frozen
class AttachPlan:
    """What a probe wants of the kernel. Data only; making one has no effect.

    Attributes:
        source: The C file.
        observations: What to observe.
        sources: Where the data comes from.
        defines: Macros for the compiler.
        parameters: What is known when the run begins only, and is none of the object's: fields of the only entry of
            the map `parameters`, all whole numbers.
        include: Folders for `#include "..."`, beside the C file's own and probekit's.
    """

    source: Path
    observations: tuple[Observation, ...]
    sources: tuple[Source, ...]
    defines: Mapping[str, int] = field(factory=dict)
    parameters: Mapping[str, int] = field(factory=dict)
    include: tuple[Path, ...] = ()

    def programs(self) -> tuple[str, ...]:
        """The C functions that may be attached, each once, in the plan's order."""
        return tuple(dict.fromkeys(point.program for o in self.observations for point in o.points if point.program))


@frozen
class MapSpec:
    """A map as the compiler describes it.

    Attributes:
        name: Its name in the C source.
        type: `enum bpf_map_type`.
        key_size: Bytes.
        value_size: Bytes.
        max_entries: Entries; of a ring buffer, bytes.
        flags: Flags of BPF_MAP_CREATE.
        placeholder: What stands for the map's descriptor in the instructions.
        key: Layout of the key: a NumPy format such as "=u8", a list [layout, shape] for an array, or a dict of names,
            formats (layouts), offsets and itemsize for a struct.
        value: Layout of the value.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    placeholder: int
    key: Any
    value: Any


@frozen
class Object:
    """A compiled C source: everything the loader needs, and no compiler.

    Attributes:
        key: A digest of all that it was made from but the compiler.
        compiler: Which bcc made it.
        maps: Its maps.
        programs: Instructions of each C function.
        targets: BTF type id of each function and tracepoint of the plan that this kernel has.
        files: Source files that `lines` refers to; as the cache has them, relative to the plan's folders.
        lines: For each C function where the source line changes: u32 triples of instruction, place in `files`, line.
    """

    key: str
    compiler: str
    maps: tuple[MapSpec, ...]
    programs: Mapping[str, bytes]
    targets: Mapping[str, int]
    files: tuple[str, ...] = ()
    lines: Mapping[str, bytes] = field(factory=dict)


@frozen
class LiveMap:
    """A map in the kernel.

    Attributes:
        spec: What it is.
        fd: Its descriptor, owned by the loader.
        value: Layout of its values; of a ring buffer, of its records.
    """

    spec: MapSpec
    fd: int
    value: Any


class Hindrance(str, enum.Enum):
    """What kind of reason there is against a way of attaching."""

    LACKING = "lacking"  # the kernel has it not, or does not allow it to anybody
    FORBIDDEN = "forbidden"  # this process lacks a capability
    VERIFIER = "verifier"  # the program is refused
    REFUSED = "refused"  # the program is loaded, and may not be attached to its target


@frozen
class Refusal:
    """A way that this kernel does not take, and why.

    Attributes:
        point: The way.
        reason: A line; where the verifier refuses a program, further ones for its author.
        kind: What kind of reason that is.
        needs: The capabilities that are missing, where it is forbidden.
    """

    point: AttachPoint
    reason: str
    kind: Hindrance = Hindrance.LACKING
    needs: tuple[str, ...] = ()


@frozen
class Attached:
    """How an observation was attached in the end.

    Attributes:
        observation: Its name.
        point: What was attached; None where nothing could be and the probe does without.
        refused: Better ways that did not work here.
        before: Where the kernel itself counts: what it had counted when the run began.
    """

    observation: str
    point: AttachPoint | None
    refused: tuple[Refusal, ...] = ()
    before: int = 0


@frozen
class Batch:
    """What one drain of one source brought.

    Attributes:
        source: The map's name.
        data: A structured array. One dimension, but (CPUs, entries) for a per-CPU map.
        taken: When, ns of CLOCK_MONOTONIC as programs read it (bpf_ktime_get_ns).
    """

    source: str
    data: Array
    taken: int = 0


@frozen
class Columns:
    """A decoded batch.

    Attributes:
        source: The map's name.
        values: One array a column, all of one length.
        taken: When the batch was, which the core says; ns of CLOCK_MONOTONIC as programs read it.
    """

    source: str
    values: Mapping[str, Array]
    taken: int = 0


@frozen
class Column:
    """A column of a table.

    Attributes:
        name: As in JSON and CSV, its unit included: `avg_latency_us`.
        values: One for each row.
        label: It says which row this is, rather than being measured.
        total: It only ever grows.
        help: One line for people.
    """

    name: str
    values: Array
    label: bool = False
    total: bool = False
    help: str = ""


@frozen
class Table:
    """Rows of figures.

    Attributes:
        name: As in JSON: `connections`.
        columns: Columns of one length.
        key: One text for each row that names it, unique.
        headline: Columns that a narrow screen shows, best first; all where empty.
    """

    name: str
    columns: tuple[Column, ...]
    key: Array
    headline: tuple[str, ...] = ()


class Deferred(Sequence[Table]):
    """Tables that are made when somebody looks at them for the first time, in whatever thread that is.

    Args:
        make: Makes them; it must not depend on what changes later.
    """

    def __init__(self, make: Callable[[], tuple[Table, ...]]) -> None:
        self._make = make
        self._made: tuple[Table, ...] | None = None
        self._lock = threading.Lock()  # exporters look from threads of their own

    def _tables(self) -> tuple[Table, ...]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def __len__(self) -> int:
        return len(self._tables())

    @overload
    def __getitem__(self, place: int) -> Table: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Table]: ...
    def __getitem__(self, place: int | slice) -> Table | Sequence[Table]:
        return self._tables()[place]


@frozen
class Bucket:
    """A bucket of a histogram that people read: low <= value < high, give or take a bucket of the fine one."""

    label: str
    low: float
    high: float
    count: int


@frozen
class Distribution:
    """A measured quantity.

    Attributes:
        name: `request`.
        unit: Of all figures but the counts: `us`.
        help: One line for people.
        events: How many values.
        min: Smallest, exact; None without events, like the next three.
        max: Largest, exact.
        mean: Exact.
        std: Standard deviation of all values, exact.
        percentiles: `p99.9` -> value, at most 0.8 % off; empty without events.
        buckets: A coarse histogram.
        counts: The log-linear histogram: counts of buckets, mergeable by adding.
    """

    name: str
    unit: str
    help: str
    events: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    percentiles: Mapping[str, float]
    buckets: tuple[Bucket, ...]
    counts: Array


@frozen
class Figures:
    """What an aggregator has to say.

    Attributes:
        summary: Single figures, by their JSON names.
        tables: The first one is the main one.
        distributions: The first one is the main one.
        lost: What is missing in the figures, by cause.
        stream: Rows since the last snapshot, where a probe streams events.
    """

    summary: Mapping[str, Any]
    tables: Sequence[Table] = ()
    distributions: tuple[Distribution, ...] = ()
    lost: Mapping[str, int] = field(factory=dict)
    stream: Table | None = None


@frozen
class Snapshot:
    """The state of a run as exporters get it.

    Attributes:
        probe: Its name.
        started: Unix seconds.
        taken: Unix seconds.
        final: The last one of the run.
        kernel: Release of the kernel.
        attached: What was attached, and how.
        figures: The probe's figures; `lost` includes what the core lost.
    """

    probe: str
    started: float
    taken: float
    final: bool
    kernel: str
    attached: tuple[Attached, ...]
    figures: Figures


class Aggregator(Protocol):
    """Turns columns into figures. One for each probe and run."""

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""

    def snapshot(self) -> Figures:
        """The figures as they are now."""


@runtime_checkable
class Joiner(Protocol):
    """An aggregator that makes more of its figures where other probes run beside it."""

    def join(self, beside: Mapping[str, Figures]) -> None:
        """Takes the figures of the run's other probes, by name, before each snapshot; those that join are not there."""


class Exporter(Protocol):
    """Takes snapshots somewhere. Entered before the probes are attached, left after the last snapshot.

    All of it is called in a thread of its own. An exporter that has an attribute `replaces`, which is True, puts each
    snapshot of a probe in place of the one before: one that still waits when the next one comes is left out.
    """

    def __enter__(self) -> Exporter:
        """Opens what it writes to."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes it."""

    def export(self, snapshot: Snapshot) -> None:
        """Takes one snapshot of one probe; after an ExportError it is called again with the next one."""


Decoder = Callable[[Batch], Columns]
