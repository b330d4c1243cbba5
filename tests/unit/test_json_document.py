"""The text that is made column by column is the document."""

from __future__ import annotations

import json
import math

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.export.document import document
from probekit.export.json_document import pieces
from probekit.model import Column, Table
from probekit.testing import sample

_TEXTS = st.text(max_size=8)
_FLOATS = st.floats(width=64) | st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
_KINDS = (
    (_TEXTS, np.str_), (_FLOATS, np.float64), (st.booleans(), np.bool_), (st.integers(0, 2**64 - 1), np.uint64),
    (st.integers(-(2**63), 2**63 - 1), np.int64),
)  # fmt: skip


@st.composite
def _tables(draw: st.DrawFn) -> Table:
    count = draw(st.integers(0, 5))
    columns = []
    for number in range(draw(st.integers(1, 6))):
        values, kind = draw(st.sampled_from(_KINDS))
        name = f"{draw(_TEXTS)}{number}"
        given = draw(st.lists(values, min_size=count, max_size=count))
        columns.append(Column(name, np.array(given, dtype=kind)))
    keys = draw(st.lists(_TEXTS, min_size=count, max_size=count))
    return Table("rows", tuple(columns), np.array(keys, dtype=np.str_))


def _near(one: object, two: object) -> bool:
    """Equal, but for a float's last digit: a column is rounded by NumPy, a single value by Python."""
    if isinstance(one, dict) and isinstance(two, dict):
        return list(one) == list(two) and all(_near(one[key], two[key]) for key in one)
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=1e-12, abs_tol=0.0011)
    return one == two


@given(_tables(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_pieces_are_the_document(table: Table, lines: bool) -> None:
    snapshot = sample()
    snapshot = attrs.evolve(snapshot, figures=attrs.evolve(snapshot.figures, tables=(table,)))
    text = "".join(pieces(snapshot, snapshot.figures.tables, {"record": "snapshot"}, lines))
    assert text.endswith("}\n")
    assert text.count("\n") == 1 or lines
    wanted = json.loads(json.dumps({"record": "snapshot", **document(snapshot)}))
    assert _near(json.loads(text), wanted)


def test_rows_come_in_many_pieces_so_that_other_threads_run_meanwhile() -> None:
    table = Table("rows", (Column("n", np.arange(10_000)),), np.arange(10_000))
    snapshot = attrs.evolve(sample(), figures=attrs.evolve(sample().figures, tables=(table,)))
    made = list(pieces(snapshot, snapshot.figures.tables, {}, lines=True))
    assert max(map(len, made)) < len("".join(made)) / 5
    assert len(json.loads("".join(made))["rows"]) == 10_000
