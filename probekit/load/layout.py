"""NumPy dtypes of C types, as the compiler described them."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_dtype(description: Any) -> np.dtype[Any]:
    """The dtype of a description in an object.

    Args:
        description: A format such as "=u8", a list [format, shape] for an array, or a dict of names, formats, offsets
            and itemsize for a struct.
    """
    if isinstance(description, dict):
        return np.dtype({**description, "formats": [as_dtype(entry) for entry in description["formats"]]})
    if isinstance(description, (list, tuple)):
        return np.dtype((as_dtype(description[0]), tuple(description[1])))
    return np.dtype(description)
