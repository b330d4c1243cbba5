"""Whatever text comes from outside, and wherever it stands in a snapshot, no exporter's reader is harmed by it."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probekit import Attached, Bucket, Column, Distribution, Events, Figures, Snapshot, Table
from probekit.attach import Fentry
from probekit.export.csv import CsvConfig, CsvExporter
from probekit.export.json import JsonConfig, JsonExporter
from probekit.export.jsonl import JsonlConfig, JsonlExporter
from probekit.export.safe import cell, json_text, visible, well_formed
from probekit.export.stdout import StdoutConfig, StdoutExporter

_HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "\x85\x80", "\x7f", "a\r\nb\tc", "\u202eevil\u202c", "\u2066x\u2069",
    "\u2028\u2029", "\ufeff\u200b\u200d", "\udcff\udc80", "\U000e0041", "=1+1", " =1", "+1", "-1", "@x", "\t=1",
    "\uff1d1", "", "e\u0301", "漢字",
]  # fmt: skip
_TEXT = st.one_of(
    st.sampled_from(_HOSTILE),
    st.text(st.characters(), max_size=8),
    st.text(st.sampled_from("\x00\x07\x1b\x7f\x9b\u2028\u202e\ufeff\udc80=+-@'\", a\n\r\t"), max_size=8),
)


@attrs.frozen
class _Names:
    """A text for each place of a snapshot that text from outside can stand in."""

    cell: str
    key: str
    column: str
    table: str
    summary: str
    value: str
    lost: str
    observation: str
    target: str
    distribution: str
    unit: str
    percentile: str
    bucket: str
    kernel: str
    probe: str


_NAMES = st.builds(_Names, **{field.name: _TEXT for field in attrs.fields(_Names)})
_SAME = [_Names(*[text] * len(attrs.fields(_Names))) for text in _HOSTILE]


def _snapshot(names: _Names) -> Snapshot:
    table = Table(
        f"table {names.table}",
        (
            Column("label", np.array([names.cell, "plain"], dtype=object), label=True),
            Column(f"{names.column}2", np.array([-3, 4])),
            Column("text", np.array([names.value, None], dtype=object)),
        ),
        np.array([names.key, f"other {names.key}"], dtype=object),
    )
    distribution = Distribution(
        name=f"distribution {names.distribution}", unit=names.unit, help=names.value, events=2, min=1.0, max=2.0,
        mean=1.5, std=None, percentiles={names.percentile: 1.0}, buckets=(Bucket(names.bucket, 0.0, 1.0, 2),),
        counts=np.zeros(4, np.int64),
    )  # fmt: skip
    figures = Figures(
        summary={
            f"summary {names.summary}": names.value,
            "by": {names.summary: 2, "more": names.value},
            "list": [names.value],
        },
        tables=(table,),
        distributions=(distribution,),
        lost={names.lost: 3},
    )
    point = Fentry(names.target, "program")
    return Snapshot(names.probe, 0.0, 1.0, True, names.kernel, (Attached(names.observation, point),), figures)


def _events(names: _Names) -> Events:
    return Events(names.probe, attrs.evolve(_snapshot(names).figures.tables[0], key=np.arange(2)))


def _written(exporter: Callable[[str], Any], names: _Names) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out")
        with exporter(str(path)) as entered:
            if hasattr(entered, "stream"):
                entered.stream(_events(names))
            entered.export(_snapshot(names))
        return path.read_bytes().decode()


def _harmless(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def _arbitrary(test: Any) -> Any:
    """With any text anywhere, and with each hostile one everywhere."""
    test = settings(derandomize=True, deadline=None)(given(_NAMES)(test))
    for names in _SAME:
        test = example(names)(test)
    return test


@_arbitrary
def test_json_is_harmless_and_says_the_same(names: _Names) -> None:
    text = _written(lambda path: JsonExporter(JsonConfig(path)), names)
    assert _harmless(text)
    document = json.loads(text)
    assert document["probe"] == well_formed(names.probe)
    assert document[well_formed(f"summary {names.summary}")] == well_formed(names.value)
    assert document["list"] == [well_formed(names.value)]
    assert document["lost"] == {well_formed(names.lost): 3}
    rows = document[well_formed(f"table {names.table}")]
    assert list(rows) == [well_formed(names.key), well_formed(f"other {names.key}")]
    assert next(iter(rows.values())) == {
        "label": well_formed(names.cell),
        well_formed(f"{names.column}2"): -3,
        "text": well_formed(names.value),
    }


@_arbitrary
def test_jsonl_is_harmless_and_a_record_is_a_line(names: _Names) -> None:
    text = _written(lambda path: JsonlExporter(JsonlConfig(path)), names)
    assert _harmless(text)
    assert text.splitlines() == text.removesuffix("\n").split("\n")
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["record"] for event in events] == ["event", "event", "snapshot"]
    assert events[0]["label"] == well_formed(names.cell)


@_arbitrary
def test_csv_is_harmless_and_no_cell_of_it_is_a_formula(names: _Names) -> None:
    text = _written(lambda path: CsvExporter(CsvConfig(path)), names)
    assert _harmless(text)
    head, first, second = csv.reader(io.StringIO(text, newline=""))
    assert head == ["label", cell(f"{names.column}2"), "text"]
    assert first == [cell(names.cell), "-3", cell(names.value)]
    assert second == ["plain", "4", ""]
    for value in (*head, first[0], first[2]):
        assert not value.lstrip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20")), value


@_arbitrary
def test_the_screen_is_harmless_and_shows_everything(names: _Names) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        with StdoutExporter(StdoutConfig()) as exporter:
            exporter.stream(_events(names))
            exporter.export(_snapshot(names))
    assert _harmless(out.getvalue())
    shown = out.getvalue().split("\n")
    assert shown[0] == f"label={visible(names.cell)}  {visible(names.column)}2=-3  text={visible(names.value)}"
    assert any(f"lost: {visible(names.lost)} 3" in line for line in shown)


@given(_TEXT)
def test_text_that_is_harmless_is_left_alone(text: str) -> None:
    if text.isprintable():
        assert visible(text) == text
        assert json_text(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b", r"\x9b"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202e", r"\u202e"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", "\ufffd"),
        (r"session\x2d1.scope", r"session\x2d1.scope"),
        ("Zürich 漢字", "Zürich 漢字"),
    ],
)
def test_what_does_more_than_stand_there_is_shown_by_its_number(text: str, seen: str) -> None:
    assert visible(text) == seen


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1", "'=1"),
        ("-", "'-"),
        (" +1", "' +1"),
        ("\t=1", r"\t=1"),
        (-5, -5),
        (-1.5, -1.5),
        (None, None),
        ("a=1", "a=1"),
    ],
)
def test_only_text_that_begins_like_a_formula_is_quoted(value: object, written: object) -> None:
    assert cell(value) == written


def test_rows_whose_keys_differ_in_bytes_that_are_no_text_are_all_in_the_document() -> None:
    table = Table("t", (Column("x", np.arange(3)),), np.array(["\udc80", "\udc81", "\udc82"]))
    snapshot = attrs.evolve(_snapshot(_SAME[0]), figures=Figures({}, (table,)))
    with tempfile.TemporaryDirectory() as folder, JsonExporter(JsonConfig(f"{folder}/out")) as exporter:
        exporter.export(snapshot)
        rows = json.loads(Path(folder, "out").read_text())["t"]
    assert {key: row["x"] for key, row in rows.items()} == {"\ufffd": 0, "\ufffd (2)": 1, "\ufffd (3)": 2}


def test_wide_characters_do_not_shift_the_columns_of_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(
        "t",
        (Column("name", np.array(["漢字", "ab\x1b"]), label=True), Column("n", np.array([1, 2]))),
        np.array(["a", "b"]),
    )
    with StdoutExporter(StdoutConfig()) as exporter:
        exporter.export(attrs.evolve(_snapshot(_SAME[0]), figures=Figures({}, (table,))))
    rows = capsys.readouterr().out.splitlines()
    wide = next(line for line in rows if line.startswith("漢字"))
    assert wide == "漢字    1"
    assert "ab\\x1b  2" in rows
