"""Recorded batches: what the maps of a probe had, with their layouts, as a file that tests read without root."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen

from ..drain.layout import as_dtype
from ..model import Array, Batch, LiveMap, MapSpec

_FORMAT = "probekit-recording/1"


@frozen
class Recording:
    """Batches of one probe in the order in which they came.

    Attributes:
        probe: Its name.
        maps: Of each source its map as the compiler described it, without a descriptor.
        batches: What was drained.
    """

    probe: str
    maps: dict[str, LiveMap]
    batches: tuple[Batch, ...]

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
        }  # fmt: skip
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads a recording.

        Raises:
            ValueError: The file is no recording of this version of probekit.
        """
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") != _FORMAT:
            raise ValueError(f"{path}: is no {_FORMAT}; record it again")
        maps = {}
        for name, spec in document["maps"].items():
            records = spec.pop("records")
            maps[name] = LiveMap(MapSpec(**spec), -1, records)
        batches = tuple(
            Batch(
                entry["source"],
                _unpacked(entry["data"], as_dtype(entry["layout"]), entry["shape"]),
                entry.get("taken", 0),
            )
            for entry in document["batches"]
        )
        return cls(document["probe"], maps, batches)


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
