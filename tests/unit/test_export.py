"""What exporters write: the same figures everywhere, whole files, and errors that name the place."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import math
import os
import stat
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from rich.console import Console

from probekit import Attached, Bucket, Column, Distribution, Figures, Snapshot, Table
from probekit.attach import Fentry
from probekit.errors import ExportError
from probekit.export import files, terminal
from probekit.export.csv import CsvConfig, CsvExporter
from probekit.export.json import JsonConfig, JsonExporter
from probekit.export.jsonl import JsonlConfig, JsonlExporter
from probekit.export.stdout import StdoutConfig, StdoutExporter
from probekit.model import Events, Run

_EVENTS = (120, 30, 7)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def _flows(*sources: str) -> Table:
    sources = sources or ("10.0.0.1:80", "[2001:db8::1]:80", "gone")
    count = len(sources)
    return Table(
        name="flows",
        columns=(
            Column("source", np.array(sources), label=True),
            Column("process", np.array(["curl"] * count), label=True),
            Column("events", np.array(_EVENTS[:count], np.uint64), total=True),
            Column("avg_us", np.array([12.34567, math.nan, math.inf][:count])),
        ),
        key=np.array([f"{source} #{number}" for number, source in enumerate(sources)]),
        headline=("source", "events", "avg_us"),
    )


def _extra() -> Table:
    return Table("extra", (Column("x", np.array([1])),), np.array(["only"]))


def _stream(count: int) -> Table:
    return Table(
        "events",
        (
            Column("process", np.array([f"p{i}" for i in range(count)], dtype=np.str_), label=True),
            Column("latency_us", np.array([1.23456, math.nan, 3.0][:count])),
        ),
        np.arange(count),
    )


def _request() -> Distribution:
    return Distribution(
        name="request", unit="us", help="what it is", events=157, min=1.0, max=99.9999, mean=12.34567, std=None,
        percentiles={"p50": 10.00049, "p99": 90.0}, counts=np.array([0, 150, 0, 7]),
        buckets=(Bucket("0-1ms", 0.0, 1000.0, 150), Bucket("1+ms", 1000.0, math.inf, 7)),
    )  # fmt: skip


def _snapshot(probe: str = "wiggle", final: bool = True, **figures: Any) -> Snapshot:
    attached = (
        Attached("send", Fentry("do_send", "send_btf")),
        Attached("arrival", None),
    )
    given = {
        "summary": {"total_events": 157, "event_type_breakdown": {"request": 150, "service": 7}, "sampled_out": 4},
        "tables": (_flows(), _extra()),
        "distributions": (_request(),),
        "lost": {"ring_full": 3, "clock": 0},
        **figures,
    }
    return Snapshot(
        probe=probe, started=1_700_000_000.0, taken=1_700_000_002.5, final=final, kernel="6.1.0", attached=attached,
        figures=Figures(**given), run=Run("7f", "wire", "b00t", 5 * 10**9, 17 * 10**17), sequence=3,
    )  # fmt: skip


_FILES: dict[str, Any] = {
    "csv": lambda path: CsvExporter(CsvConfig(str(path))),
    "json": lambda path: JsonExporter(JsonConfig(str(path))),
    "jsonl": lambda path: JsonlExporter(JsonlConfig(str(path))),
}
_each_file = pytest.mark.parametrize("kind", _FILES)


def _export(exporter: Any, *given: Snapshot | Events) -> None:
    with exporter:
        for each in given:
            if isinstance(each, Events):
                exporter.stream(each)
            else:
                exporter.export(each)


def _shown(capsys: pytest.CaptureFixture[str], *given: Snapshot | Events, **options: Any) -> str:
    _export(StdoutExporter(StdoutConfig(**options)), *given)
    return capsys.readouterr().out


def _document(folder: Path, snapshot: Snapshot) -> Any:
    _export(JsonExporter(JsonConfig(str(folder / "a.json"))), snapshot)
    return json.loads((folder / "a.json").read_text(), parse_constant=pytest.fail)


def test_every_exporter_gives_the_same_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, make in _FILES.items():
        _export(make(tmp_path / kind), _snapshot())
    document = json.loads((tmp_path / "json").read_text())
    line = json.loads((tmp_path / "jsonl").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    shown = _shown(capsys, _snapshot())
    assert document["total_events"] == 157
    assert sum(row["events"] for row in document["flows"].values()) == 157
    assert sum(int(row["events"]) for row in rows) == 157
    assert line == {"record": "snapshot", **document}
    assert [row["source"] for row in rows] == [row["source"] for row in document["flows"].values()]
    for row in rows:
        assert any(row["source"] in text and row["events"] in text for text in shown.splitlines())


def test_a_document_says_what_was_measured_where_and_how(tmp_path: Path) -> None:
    document = _document(tmp_path, _snapshot())
    head = {name: document[name] for name in list(document)[:8]}
    assert head == {
        "schema": "probekit/2",
        "probe": "wiggle",
        "run": {
            "id": "7f",
            "host": "wire",
            "boot_id": "b00t",
            "sequence": 3,
            "final": True,
            "began_monotonic_ns": 5_000_000_000,
            "began_unix_ns": 1_700_000_000_000_000_000,
        },
        "timestamp": "2023-11-14T22:13:22.500000+00:00",
        "duration_seconds": 2.5,
        "kernel": "6.1.0",
        "attached": {"send": "fentry do_send", "arrival": "not on this kernel"},
        "lost": {"ring_full": 3, "clock": 0},
    }
    assert document["event_type_breakdown"] == {"request": 150, "service": 7}


def test_a_document_has_the_main_distribution_at_the_top_and_all_below(tmp_path: Path) -> None:
    second = attrs.evolve(_request(), name="wire", events=0, min=None, max=None, mean=None, percentiles={})
    document = _document(tmp_path, _snapshot(distributions=(_request(), second)))
    assert document["histogram"] == {"0-1ms": 150, "1+ms": 7}
    assert document["percentiles"] == {"p50": 10.0, "p99": 90.0}
    assert document["distributions"]["request"] == {
        "help": "what it is",
        "events": 157,
        "min_us": 1.0,
        "avg_us": 12.346,
        "max_us": 100.0,
        "std_dev_us": None,
        "percentiles": {"p50": 10.0, "p99": 90.0},
        "histogram": {"0-1ms": 150, "1+ms": 7},
        "buckets": {"scheme": "log-linear/64", "unit": "ns", "counts": {"1": 150, "3": 7}},
    }
    assert document["distributions"]["wire"]["min_us"] is None


def test_a_document_says_what_its_columns_are(tmp_path: Path) -> None:
    names = ("bytes_sent", "avg_us", "churn_per_s", "unseen_percent", "idle_share", "until_s", "segments")
    columns = tuple(Column(name, np.zeros(1), total=name == "bytes_sent", help="it") for name in names)
    table = Table("all", (Column("who", np.array(["x"]), label=True), *columns), np.array(["x"]))
    told = _document(tmp_path, _snapshot(tables=(table,)))["described"]["all"]
    assert told["who"] == {"kind": "information", "unit": "", "help": ""}
    assert [told[name]["unit"] for name in names] == ["bytes", "us", "1/s", "percent", "ratio", "s", ""]
    assert [told[name]["kind"] for name in names] == ["counter", *["gauge"] * 6]
    assert told["avg_us"]["help"] == "it"


def test_a_document_has_each_table_by_its_keys(tmp_path: Path) -> None:
    document = _document(tmp_path, _snapshot())
    assert list(document["flows"]) == ["10.0.0.1:80 #0", "[2001:db8::1]:80 #1", "gone #2"]
    assert document["flows"]["10.0.0.1:80 #0"] == {
        "source": "10.0.0.1:80",
        "process": "curl",
        "events": 120,
        "avg_us": 12.346,
    }
    assert document["extra"] == {"only": {"x": 1}}


def test_what_is_no_number_is_null_in_json_empty_in_csv_and_a_dash_on_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _export(_FILES["csv"](tmp_path / "csv"), _snapshot())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert [row["avg_us"] for row in rows] == ["12.346", "", ""]
    document = _document(tmp_path, _snapshot())
    assert [row["avg_us"] for row in document["flows"].values()] == [12.346, None, None]
    (line,) = (text for text in _shown(capsys, _snapshot()).splitlines() if text.startswith("[2001:db8::1]:80"))
    assert line.split() == ["[2001:db8::1]:80", "30", "-"]


def test_text_is_utf8_and_not_escaped(tmp_path: Path) -> None:
    for kind in _FILES:
        _export(_FILES[kind](tmp_path / kind), _snapshot(tables=(_flows("Zürich"),)))
        assert "Zürich" in (tmp_path / kind).read_text("utf-8")


def test_csv_quotes_what_would_break_a_row(tmp_path: Path) -> None:
    _export(_FILES["csv"](tmp_path / "csv"), _snapshot(tables=(_flows('a,"b",c'),)))
    (row,) = csv.DictReader(io.StringIO((tmp_path / "csv").read_text(), newline=""))
    assert (row["source"], row["events"]) == ('a,"b",c', "120")


def test_csv_writes_the_main_table_or_the_one_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    _export(CsvExporter(CsvConfig(str(path))), _snapshot())
    assert path.read_text().splitlines()[0] == "source,process,events,avg_us"
    _export(CsvExporter(CsvConfig(str(path), table="extra")), _snapshot())
    assert path.read_text() == "x\n1\n"


def test_csv_names_the_tables_there_are_when_asked_for_another(tmp_path: Path) -> None:
    exporter = CsvExporter(CsvConfig(str(tmp_path / "a.csv"), table="flow"))
    with exporter, pytest.raises(ExportError, match=r"wiggle has no table flow \(available: flows, extra\)"):
        exporter.export(_snapshot())
    assert list(tmp_path.iterdir()) == []


def test_csv_of_a_probe_without_tables_is_an_error(tmp_path: Path) -> None:
    exporter = CsvExporter(CsvConfig(str(tmp_path / "a.csv")))
    with exporter, pytest.raises(ExportError, match="no table"):
        exporter.export(_snapshot(tables=()))


def test_a_table_without_rows_is_a_header_alone(tmp_path: Path) -> None:
    flows = _flows()
    empty = attrs.evolve(
        flows,
        key=flows.key[:0],
        columns=tuple(attrs.evolve(column, values=column.values[:0]) for column in flows.columns),
    )  # fmt: skip
    _export(_FILES["csv"](tmp_path / "csv"), _snapshot(tables=(empty,)))
    assert (tmp_path / "csv").read_text() == "source,process,events,avg_us\n"
    assert _document(tmp_path, _snapshot(tables=(empty,)))["flows"] == {}


def test_jsonl_writes_each_streamed_event_then_the_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    _export(_FILES["jsonl"](path), Events("wiggle", _stream(2)), _snapshot(final=False), _snapshot())
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert lines[:2] == [
        {"record": "event", "probe": "wiggle", "process": "p0", "latency_us": 1.235},
        {"record": "event", "probe": "wiggle", "process": "p1", "latency_us": None},
    ]
    assert [line["record"] for line in lines[2:]] == ["snapshot", "snapshot"]


def test_jsonl_writes_what_is_new_and_files_that_are_replaced_end_with_all(tmp_path: Path) -> None:
    snapshots = [
        _snapshot(final=final, news=(_flows(*new), _extra())) for new, final in ((("a",), False), (("b",), True))
    ]
    seen: dict[str, list[list[str]]] = {}
    for kind in ("csv", "json", "jsonl"):
        with _FILES[kind](tmp_path / kind) as exporter:
            for snapshot in snapshots:
                exporter.export(snapshot)
                text = (tmp_path / kind).read_text()
                rows = csv.DictReader(io.StringIO(text)) if kind == "csv" else None
                flows = rows or json.loads(text.splitlines()[-1] if kind == "jsonl" else text)["flows"].values()
                seen.setdefault(kind, []).append([row["source"] for row in flows])
    whole = ["10.0.0.1:80", "[2001:db8::1]:80", "gone"]
    assert seen == {"csv": [["a"], whole], "json": [["a"], whole], "jsonl": [["a"], ["b"]]}


def test_jsonl_adds_to_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before\n")
    _export(_FILES["jsonl"](path), _snapshot())
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line)["record"] == "snapshot"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_has_the_newest_snapshot(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    with _FILES[kind](path) as exporter:
        exporter.export(_snapshot(final=False, tables=(_flows("first"),)))
        assert "first" in path.read_text()
        exporter.export(_snapshot(tables=(_flows("second"),)))
    assert "second" in path.read_text()
    assert "first" not in path.read_text()


@_each_file
def test_each_probe_has_its_own_file_by_the_placeholder(tmp_path: Path, kind: str) -> None:
    _export(_FILES[kind](tmp_path / "{probe}.out"), _snapshot("wiggle"), _snapshot("wobble"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wiggle.out", "wobble.out"]


@_each_file
def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, kind: str) -> None:
    mask = os.umask(0)
    try:
        _export(_FILES[kind](tmp_path / "out"), _snapshot())
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_file_that_cannot_be_written_keeps_its_contents_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "out"
    path.write_text("as it was")
    monkeypatch.setattr(os, call, refuse)
    with _FILES[kind](path) as exporter, pytest.raises(ExportError, match=f"{path}: No space left on device"):
        exporter.export(_snapshot())
    assert path.read_text() == "as it was"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_nobody_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((path.read_text(), len(list(tmp_path.iterdir())))))
    files.write(str(path), "new")
    assert seen == [("old", 2)]
    assert path.read_text() == "new"


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    files.write(str(link), "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write(str(pipe), "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@_each_file
def test_a_missing_folder_is_found_before_anything_is_measured(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no" / "out"
    with pytest.raises(ExportError, match=f"{path}: the folder {path.parent} does not exist"):
        _FILES[kind](path).__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@_each_file
def test_a_folder_that_may_not_be_written_is_found_before_anything_is_measured(tmp_path: Path, kind: str) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="is not writable"):
        _FILES[kind](tmp_path / "out").__enter__()


@_each_file
def test_what_is_written_as_it_is_needs_no_folder_that_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with _FILES[kind](pipe):
        pass


@_each_file
def test_a_folder_in_the_files_place_is_found_before_anything_is_measured(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ExportError, match=str(tmp_path)):
        _FILES[kind](tmp_path).__enter__()


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device that is full: for root, who could replace /dev/full by a file, one that nobody misses."""
    if os.geteuid() != 0:
        return Path("/dev/full")
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        path.open("w").close()
    except OSError as error:
        pytest.skip(f"no device of its own: {error}")
    return path


@_each_file
def test_a_full_device_is_an_export_error_with_its_name(kind: str, full: Path) -> None:
    message = f"{full}: No space left on device"
    with (
        contextlib.suppress(ExportError),
        _FILES[kind](full) as exporter,
        pytest.raises(ExportError, match=message) as caught,
    ):
        exporter.export(_snapshot())
    assert caught.value.exit_code == 4


@_each_file
def test_an_exporter_that_has_failed_does_not_fail_again_when_it_is_left(kind: str, full: Path) -> None:
    exporter = _FILES[kind](full)
    exporter.__enter__()
    with contextlib.suppress(ExportError):
        exporter.export(_snapshot())
    exporter.__exit__(None, None, None)


@_each_file
def test_an_exporter_that_has_failed_leaves_no_descriptor_open(kind: str, full: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.suppress(ExportError), _FILES[kind](full) as exporter:
        exporter.export(_snapshot())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class _Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", [*_FILES, "stdout"])
def test_a_full_standard_output_is_an_export_error(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    exporter = _FILES[kind]("-") if kind in _FILES else StdoutExporter(StdoutConfig())
    monkeypatch.setattr(sys, "stdout", _Full())
    with exporter, pytest.raises(ExportError, match="No space left on device"):
        exporter.export(_snapshot())


@pytest.mark.parametrize("kind", [*_FILES, "stdout"])
def test_a_closed_standard_output_is_found_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    exporter = _FILES[kind]("-") if kind in _FILES else StdoutExporter(StdoutConfig())
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ExportError, match=r"^standard output is closed$"):
        exporter.__enter__()
    with pytest.raises(ExportError, match=r"^standard output is closed$"):
        exporter.export(_snapshot())


@pytest.mark.parametrize("kind", ["csv", "json", "stdout"])
def test_standard_output_gets_the_last_snapshot_alone(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    exporter = _FILES[kind]("-") if kind in _FILES else StdoutExporter(StdoutConfig())
    exporter.__enter__()
    exporter.export(_snapshot(final=False))
    assert capsys.readouterr().out == ""
    exporter.export(_snapshot())
    assert "10.0.0.1:80" in capsys.readouterr().out


@_each_file
def test_standard_output_gets_what_a_file_would(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    _export(_FILES[kind](tmp_path / "out"), _snapshot())
    _export(_FILES[kind]("-"), _snapshot())
    assert capsys.readouterr().out == (tmp_path / "out").read_text()


def test_standard_output_stays_open_for_the_next_exporter(capsys: pytest.CaptureFixture[str]) -> None:
    _export(_FILES["jsonl"]("-"), _snapshot())
    _export(_FILES["json"]("-"), _snapshot())
    assert capsys.readouterr().out.count('"schema"') == 2


def test_the_screen_shows_figures_losses_and_ways_of_attaching(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _shown(capsys, _snapshot())
    assert "wiggle" in shown
    assert "2.5 s" in shown
    assert "lost: ring_full 3" in shown
    assert "clock" not in shown
    assert "attached on 6.1.0: send: fentry do_send, arrival: not on this kernel" in shown
    (request,) = (line for line in shown.splitlines() if line.startswith("request") and "157" in line)
    assert request.split() == ["request", "157", "1.0", "12.3", "100.0", "-", "10.0", "90.0"]
    assert _shown(capsys, _snapshot(lost={"ring_full": 0})).count("lost: nothing") == 1


def test_the_screen_says_each_distribution_in_its_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = attrs.evolve(_request(), name="size", unit="bytes")
    shown = _shown(capsys, _snapshot(distributions=(_request(), sizes, attrs.evolve(_request(), name="wire"))))
    heads = [line.split()[0] for line in shown.splitlines() if "std dev" in line]
    assert heads == ["µs", "bytes"]
    in_us, in_bytes = shown.index("\nµs"), shown.index("\nbytes")
    assert in_us < shown.index("\nrequest") < shown.index("\nwire") < in_bytes < shown.index("\nsize")


def test_the_screen_has_no_escape_codes_unless_it_is_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in _shown(capsys, Events("wiggle", _stream(2)), _snapshot())


@pytest.mark.parametrize(
    "text", ["[fd00::1]:80", "[fe80::a:b]:80", "[2001:db8:a:b::1]:80", "[/x]", "[bold]", "[red]x[/red]", ":smile:"]
)
def test_text_is_shown_as_it_is_and_never_taken_for_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    stream = Table("events", (Column("source", np.array([text]), label=True),), np.array(["a"]))
    lines = _shown(capsys, Events("wiggle", stream), _snapshot(tables=(_flows(text),))).splitlines()
    assert f"source={text}" in lines
    assert any(line.split() == [text, "120", "12.3"] for line in lines)


def test_the_screen_shows_the_first_rows_and_says_how_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _shown(capsys, _snapshot(), rows=1)
    assert "flows (the first 1 of 3)" in shown
    assert "10.0.0.1:80" in shown
    assert "gone" not in shown
    assert "the first" not in _shown(capsys, _snapshot(), rows=3)


def test_the_screen_shows_the_main_columns_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "curl" not in _shown(capsys, _snapshot())
    assert "curl" in _shown(capsys, _snapshot(), wide=True)


def test_a_pipe_gets_every_streamed_event_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    long = Table("events", (Column("process", np.array(["x" * 400]), label=True),), np.array(["a"]))
    shown = _shown(capsys, Events("wiggle", _stream(3)), _snapshot(final=False))
    assert shown == "process=p0  latency_us=1.2\nprocess=p1  latency_us=-\nprocess=p2  latency_us=3.0\n"
    assert _shown(capsys, Events("wiggle", long)) == f"process={'x' * 400}\n"


@pytest.mark.parametrize("columns", ["", "wide", "0"])
def test_a_width_that_is_none_does_not_cost_the_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "10.0.0.1:80" in _shown(capsys, _snapshot())


@pytest.mark.parametrize("kind", [*_FILES, "stdout"])
def test_an_exporters_hooks_give_a_class_and_an_exporter_of_its_instance(kind: str) -> None:
    module = importlib.import_module(f"probekit.export.{kind}")
    config = module.probekit_config()()
    assert attrs.has(type(config))
    assert {"__enter__", "__exit__", "export"} <= set(dir(module.probekit_export(config)))


@pytest.mark.parametrize("width", [80, 100])
def test_figures_of_any_size_are_whole_at_any_width(width: int) -> None:
    tiny, long = 0.04, 123_456_789.0
    distribution = attrs.evolve(
        _request(),
        min=tiny,
        mean=43_335.1,
        max=long,
        std=7.0,
        percentiles={f"p{n}": 999.96 for n in (50, 75, 90, 95, 99)},
    )
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as shown:
        terminal.render(console, _snapshot(distributions=(distribution,)), 20, False)
    lines = shown.get().splitlines()
    assert not any("…" in line for line in lines[:3])
    figures = next(line for line in lines if line.startswith("request") and "157" in line).split()
    if width == 80:
        assert figures == ["request", "157", "0.0µs", "43.3ms", "123s", "1.0ms", "1.0ms", "1.0ms"]
        assert [line.split() for line in lines if line.startswith("10.0.0.1:80")] == [["10.0.0.1:80", "120", "12.3µs"]]
    else:
        assert figures[2:6] == ["0.0", "43,335.1", "123,456,789.0", "7.0"]
