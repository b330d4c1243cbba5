"""What a probe drained, with the layouts, and what it asked the machine, as a file that is read without root."""

from __future__ import annotations

import base64
import errno
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from ..drain.layout import as_dtype
from ..model import Array, Attached, AttachPoint, Batch, LiveMap, MapSpec

_FORMAT = "probekit-recording/2"


@frozen
class RecordedPoint(AttachPoint):
    """What was attached when it was recorded; it is not attached again.

    Attributes:
        way: What the way of attaching is called.
        target: What it was attached to.
        program: The C function.
    """

    way: str  # type: ignore[misc] # of a recorded one it is data
    target: str
    program: str

    def link(self, program: int) -> Sequence[int]:
        """Nothing can be attached.

        Raises:
            OSError: Always.
        """
        raise OSError(errno.EOPNOTSUPP, "it was recorded")


@frozen
class Recording:
    """What one probe drained, in the order in which it came, and what it asked the machine.

    Attributes:
        probe: Its name.
        maps: Of each source its map as the compiler described it, without a descriptor.
        batches: What was drained.
        began: When the run did, ns of the programs' clock.
        attached: How each observation was attached.
        answers: Questions to the machine, in their order, with the answers and the numbers of errors.
        snapshots: How many batches there were when each snapshot was made; the last one is what a replay gives.
    """

    probe: str
    maps: dict[str, LiveMap]
    batches: tuple[Batch, ...]
    began: int
    attached: tuple[Attached, ...]
    answers: tuple[tuple[str, Any, int], ...]
    snapshots: tuple[int, ...]

    def dtype(self, source: str) -> np.dtype[Any]:
        """The dtype of a source's batches; of a hash, with the fields `key` and `value`."""
        return next(batch.data.dtype for batch in self.batches if batch.source == source)

    def batch(self, source: str, *rows: Any) -> Batch:
        """A made-up batch in the layout of a recorded one.

        Args:
            source: The map's name.
            rows: As `numpy.array` takes them for a structured dtype: tuples, nested like the structs. A field that is
                an array takes one value for all of its elements.
        """
        return Batch(source, np.array(list(rows), self.dtype(source)))

    def save(self, path: Path) -> None:
        """Writes the recording as JSON."""
        document = {
            "format": _FORMAT,
            "probe": self.probe,
            "maps": {
                name: {**attrs.asdict(live.spec), "placeholder": 0, "records": live.value}
                for name, live in self.maps.items()
            },
            "batches": [
                {"source": batch.source, "layout": _described(batch.data.dtype), "shape": batch.data.shape,
                 "taken": batch.taken, "data": _packed(batch.data)}
                for batch in self.batches
            ],
            "began": self.began,
            "attached": [
                {"observation": entry.observation, "before": entry.before,
                 "point": None if (point := entry.point) is None else [point.way, point.target, point.program]}
                for entry in self.attached
            ],
            "answers": self.answers,
            "snapshots": self.snapshots,
        }  # fmt: skip
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads a recording.

        Raises:
            ValueError: The file is no recording of this version of probekit.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, text: str) -> Recording:
        """A recording from its file's contents.

        Raises:
            ValueError: They are no recording of this version of probekit.
        """
        document = json.loads(text)
        if document.get("format") != _FORMAT:
            raise ValueError(f"is no {_FORMAT}; record it again")
        maps = {}
        for name, spec in document["maps"].items():
            records = spec.pop("records")
            maps[name] = LiveMap(MapSpec(**spec), -1, records)
        batches = tuple(
            Batch(
                entry["source"],
                _unpacked(entry["data"], as_dtype(entry["layout"]), entry["shape"]),
                entry["taken"],
            )
            for entry in document["batches"]
        )
        attached = tuple(
            Attached(
                entry["observation"], None if entry["point"] is None else RecordedPoint(*entry["point"]),
                before=entry["before"],
            )
            for entry in document["attached"]
        )  # fmt: skip
        answers = tuple((question, answer, number) for question, answer, number in document["answers"])
        return cls(document["probe"], maps, batches, document["began"], attached, answers, tuple(document["snapshots"]))


def _described(dtype: np.dtype[Any]) -> Any:
    """A dtype as layouts are described everywhere; the reverse of `as_dtype`."""
    if dtype.subdtype is not None:
        return [_described(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.names is None:
        return dtype.str
    fields: Any = dtype.fields
    return {
        "names": list(dtype.names),
        "formats": [_described(fields[name][0]) for name in dtype.names],
        "offsets": [fields[name][1] for name in dtype.names],
        "itemsize": dtype.itemsize,
    }


def _packed(data: Array) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(data).tobytes(), 9)).decode()


def _unpacked(text: str, dtype: np.dtype[Any], shape: list[int]) -> Array:
    array: Array = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)
    return array
