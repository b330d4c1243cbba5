"""NumPy dtypes of C types, as the compiler described them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model import LiveMap


def round8(size: int) -> int:
    """A size with the padding that the kernel gives to elements of arrays and records of ring buffers."""
    return (size + 7) & ~7


def as_dtype(description: Any) -> np.dtype[Any]:
    """The dtype of a description in an object.

    Args:
        description: As `probekit.model.MapSpec` has it.
    """
    if isinstance(description, dict):
        made: Any = {**description, "formats": [as_dtype(entry) for entry in description["formats"]]}
        record: np.dtype[Any] = np.dtype(made)
        return record
    if isinstance(description, (list, tuple)):
        array: np.dtype[Any] = np.dtype((as_dtype(description[0]), tuple(description[1])))
        return array
    return np.dtype(str(description))


def entry(live: LiveMap, cpus: int = 0) -> np.dtype[Any]:
    """The dtype of a hash's entries: `key` and `value`.

    Args:
        live: The hash.
        cpus: Of a per-CPU one, for which `value` has the values of all: shape (CPUs,).
    """
    value = as_dtype(live.value)
    return np.dtype([("key", as_dtype(live.spec.key)), ("value", value, (cpus,)) if cpus else ("value", value)])
