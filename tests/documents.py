"""Documents that tests make, held against the schema in docs/schema."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "probekit-2.json"
_LARGE = 20_000_000  # bytes: beyond that it takes longer than the test


@functools.cache
def _validator() -> Any:
    import fastjsonschema

    return fastjsonschema.compile(json.loads(SCHEMA.read_text()), use_default=False)


def check(told: Any) -> None:
    """Raises what is wrong with a document: by the schema, or tables that are not what is said of their columns."""
    _validator()(told)
    for table, columns in told.get("described", {}).items():
        for key, row in told[table].items():
            assert list(row) == list(columns), f"row {key} of {table} has other columns than it says"


def check_folder(folder: Path) -> None:
    """Looks at all documents in a folder. In a guest without the library nothing is looked at."""
    if importlib.util.find_spec("fastjsonschema") is None:
        return
    for path in sorted(folder.rglob("*.json*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < _LARGE:
            for told in _documents(path):
                check(told)


def _documents(path: Path) -> Iterator[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for part in [text] if path.suffix == ".json" else text.splitlines():
        try:
            told = json.loads(part)
        except ValueError:  # a test may have cut it
            continue
        if isinstance(told, dict) and ("probekit/" in str(told.get("schema")) or told.get("record") == "event"):
            yield told
