"""What was compiled, and what of it is in the kernel."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from .plan import Planned
from .points import AttachPoint


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
class Compiled:
    """A probe that is ready to be loaded."""

    planned: Planned
    object: Object


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
