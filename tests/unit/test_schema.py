"""The schema of documents: what it says of real ones, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit.aggregate import Histogram
from probekit.export.document import SCHEMA, document
from probekit.testing import sample

from ..documents import SCHEMA as FILE
from ..documents import check, check_folder


def _told() -> Any:
    return json.loads(json.dumps(document(sample())))


def test_the_schema_is_that_of_the_version() -> None:
    assert json.loads(FILE.read_text())["title"] == SCHEMA == f"probekit/{FILE.stem.rpartition('-')[2]}"
    check(_told())


def _without(name: str) -> Callable[[Any], None]:
    return lambda told: told.pop(name)


def _put(*way: str, value: Any) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        *outer, last = way
        for name in outer:
            told = told[name]
        told[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        *map(_without, ("schema", "probe", "run", "timestamp", "lost", "described")),
        _put("schema", value="probekit/1"),
        _put("timestamp", value="yesterday"),
        _put("lost", "ring", value=-1),
        _put("duration_seconds", value=-0.1),
        _put("run", "sequence", value="3"),
        _put("run", "more", value=1),
        _put("percentiles", "median", value=1.0),
        _put("surprise", value=[1]),
        _put("described", "sheets", value={"x": {"kind": "number", "unit": "", "help": ""}}),
    ],
)
def test_what_is_no_document_is_refused(change: Callable[[Any], None]) -> None:
    told = copy.deepcopy(_told())
    change(told)
    with pytest.raises(Exception, match=r"data|sheets|must"):
        check(told)


def test_rows_that_are_not_as_described_are_refused(tmp_path: Path) -> None:
    told = _told()
    table = next(iter(told["described"]))
    row = next(iter(told[table].values()))
    row["another"] = 1
    (tmp_path / "it.json").write_text(json.dumps({"schema": "none of ours"}))
    check_folder(tmp_path)
    with pytest.raises(AssertionError, match="other columns"):
        check(told)


def test_the_histograms_of_two_documents_are_merged_by_adding() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 10**9, 5000), rng.integers(10**6, 10**7, 3000)]
    whole, read = Histogram(), Histogram()
    for part in parts:
        whole.add(part)
        one = Histogram()
        one.add(part)
        told = document(_with(one))
        read.counts += Histogram.of(told["distributions"]["wait"]["buckets"]).counts
    assert (read.counts == whole.counts).all()
    for percent in (50, 99, 99.9):
        assert read.percentile(percent) == pytest.approx(whole.percentile(percent), rel=0.008)
    with pytest.raises(ValueError, match="no log-linear"):
        Histogram.of({"scheme": "log-linear/32", "unit": "ns", "counts": {}})


def _with(histogram: Histogram) -> Any:
    import attrs

    snapshot = sample()
    distributions = (histogram.distribution("wait", "it"),)
    return attrs.evolve(snapshot, figures=attrs.evolve(snapshot.figures, distributions=distributions))
