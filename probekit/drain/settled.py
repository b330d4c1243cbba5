"""Copies of records that somebody changes meanwhile: each as it was at one moment."""

from __future__ import annotations

import numpy as np

from ..model import Array

_TRIES = 16
_TOGETHER = 1024  # slots copied at once: few enough for both copies to be in a cache


def settled(shared: Array, places: Array) -> Array:
    """Copies slots of shared memory, so that no copy is half of before a change and half of after it.

    A slot is copied until two copies, one after the other, are the same. One that changes all the time is as it was the
    last time: only if that fell into the nanoseconds of a change it is torn.

    Args:
        shared: Shape (slots,), structured; others write to it.
        places: Shape (n,), the slots that are wanted.
    """
    parts = np.split(places, range(_TOGETHER, len(places), _TOGETHER))
    return np.concatenate([_settled(shared, part) for part in parts])


def _settled(shared: Array, places: Array) -> Array:
    copies = shared[places]
    moving = np.arange(len(places))
    for _ in range(_TRIES):
        again = shared[places[moving]]
        changed = (_bytes(again) != _bytes(copies[moving])).any(axis=1)
        copies[moving] = again
        moving = moving[changed]
        if not len(moving):
            break
    return copies


def _bytes(records: Array) -> Array:
    return np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)
