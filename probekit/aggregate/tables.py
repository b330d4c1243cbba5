"""What tables have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..model import Array


def unique_keys(texts: Sequence[str]) -> Array:
    """Keys of rows: these texts, with a number where one stands for several rows: `a`, `a #2`."""
    keys = list(texts)
    if len(set(keys)) < len(keys):
        seen: Counter[str] = Counter()
        for place, text in enumerate(keys):
            seen[text] += 1
            if seen[text] > 1:
                keys[place] = f"{text} #{seen[text]}"
    return np.array(keys, dtype=np.str_)


def ends_keys(sources: Array, destinations: Array) -> Array:
    """Keys of connections, by the texts of their ends: `10.0.0.1:40000 -> 10.0.0.2:80`.

    Args:
        sources: Shape (n,).
        destinations: Shape (n,).
    """
    return unique_keys(
        [f"{here} -> {there}" for here, there in zip(sources.tolist(), destinations.tolist(), strict=True)]
    )
