"""What the configuration says of a TOML document: nothing is coerced, ignored or left unnamed."""

from __future__ import annotations

import datetime
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import frozen

from probekit import Bytes, Seconds, option
from probekit.config import RunSettings, Settings, overrides, read, structure, suggestion
from probekit.config import document as reading
from probekit.config.document import DEEPEST, LARGEST, Document
from probekit.config.structure import MOST
from probekit.errors import ConfigError, InputError, PluginError
from probekit.export.files import PATH_RULE, check_template
from probekit.model import Added
from probekit.words import show


@frozen
class Wiggle:
    """A probe with an option of each type."""

    mode: Literal["fast", "careful"] = option("fast", help="how")
    share: float = option(1.0, help="how much", allowed="above 0 and at most 1", check=lambda v: 0 < v <= 1)
    count: int = option(10, help="how many", allowed="from 1 to 100", check=lambda v: 1 <= v <= 100)
    loud: bool = option(False, help="whether to shout")
    label: str = option("x", help="what to call it")
    wait: Seconds = option(Seconds(1.0), help="how long", allowed='at most "60s"', check=lambda v: v <= 60)
    buffer: Bytes = option(Bytes(4096), help="how big", allowed='at least "4KiB"', check=lambda v: v >= 4096)
    limit: Seconds | None = option(None, help="until when", allowed="above 0", check=lambda v: v > 0)


@frozen
class Wobble:
    """A probe with an option that has to be given, and two that exclude each other."""

    device: str = option(help="which", example='"eth0"')
    low: int = option(0, help="from")
    high: int = option(1, help="to")

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low has to be at most high")


@frozen
class Paper:
    """An exporter to a file."""

    path: str = option("-", help="the file", allowed=PATH_RULE, check=check_template)


@frozen
class Screen:
    """An exporter without a file."""

    rows: int = option(20, help="how many rows")


def _lookup(word: str, known: dict[str, type]) -> Callable[[str], type]:
    def find(name: str) -> type:
        if name == "broken":
            raise PluginError(f"{word} broken cannot be imported")
        if name not in known:
            raise InputError(f"unknown {word} {name!r}{suggestion(name, tuple(known))}")
        return known[name]

    return find


_PROBES = _lookup("probe", {"wiggle": Wiggle, "wobble": Wobble})
_AGGREGATORS = _lookup("aggregator", {"tally": Paper})
_EXPORTERS = _lookup("exporter", {"paper": Paper, "screen": Screen})


def _settings(document: dict[str, Any], *probes: str) -> Settings:
    return structure(document, probes or ("wiggle",), _PROBES, _AGGREGATORS, _EXPORTERS, "")


def _problems(document: dict[str, Any], *probes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _settings(document, *probes)
    return caught.value.problems


def test_an_empty_document_gives_every_default() -> None:
    assert _settings({}) == Settings(run=RunSettings(), probes={"wiggle": Wiggle()}, aggregates=(), exports=())


def test_every_type_of_option_is_read() -> None:
    table = {
        "mode": "careful",
        "share": 0.5,
        "count": 7,
        "loud": True,
        "label": "y",
        "wait": "250ms",
        "buffer": "1MiB",
        "limit": "1m30s",
    }
    assert _settings({"probe": {"wiggle": table}}).probes["wiggle"] == Wiggle(
        "careful", 0.5, 7, True, "y", Seconds(0.25), Bytes(1 << 20), Seconds(90.0)
    )


def test_a_whole_number_is_a_number_and_a_size() -> None:
    wiggle = _settings({"probe": {"wiggle": {"share": 1, "buffer": 8192}}}).probes["wiggle"]
    assert (type(wiggle.share), wiggle.share, wiggle.buffer) == (float, 1.0, 8192)


def test_exporters_keep_their_order_and_may_come_twice() -> None:
    settings = _settings(
        {"export": [{"kind": "screen"}, {"kind": "paper", "path": "a"}, {"kind": "screen", "rows": 3}]}
    )
    assert [(export.kind, export.settings) for export in settings.exports] == [
        ("screen", Screen()),
        ("paper", Paper("a")),
        ("screen", Screen(3)),
    ]


_NUMBER, _WHOLE, _STRING, _BOOL = "a number", "a whole number", "a string", "true or false"
_DURATION, _SIZE = "a duration with its unit", "a size such as"


@pytest.mark.parametrize(
    ("option", "value", "shown", "allowed"),
    [
        ("mode", "slow", '"slow"', "one of fast, careful"),
        ("mode", 1, "1", "one of fast, careful"),
        ("mode", True, "true", "one of fast, careful"),
        ("mode", ["fast"], '["fast"]', "one of fast, careful"),
        ("mode", {"fast": 1}, "{fast = 1}", "one of fast, careful"),
        ("share", "0.5", '"0.5"', _NUMBER),
        ("share", True, "true", _NUMBER),
        ("share", float("nan"), "nan", _NUMBER),
        ("share", float("inf"), "inf", _NUMBER),
        ("share", 0, "0", "above 0 and at most 1"),
        ("share", 1.01, "1.01", "above 0 and at most 1"),
        ("count", "5", '"5"', _WHOLE),
        ("count", 5.0, "5.0", _WHOLE),
        ("count", True, "true", _WHOLE),
        ("count", [5], "[5]", _WHOLE),
        ("count", 0, "0", "from 1 to 100"),
        ("count", 101, "101", "from 1 to 100"),
        ("loud", 1, "1", _BOOL),
        ("loud", "true", '"true"', _BOOL),
        ("label", 5, "5", _STRING),
        ("label", False, "false", _STRING),
        ("label", {}, "{}", _STRING),
        ("wait", 5, "5", _DURATION),
        ("wait", 0.5, "0.5", _DURATION),
        ("wait", "5", '"5"', _DURATION),
        ("wait", True, "true", _DURATION),
        ("wait", "61s", '"61s"', 'at most "60s"'),
        ("buffer", -1, "-1", _SIZE),
        ("buffer", 4096.0, "4096.0", _SIZE),
        ("buffer", True, "true", _SIZE),
        ("buffer", "4MB", '"4MB"', _SIZE),
        ("buffer", 4095, "4095", 'at least "4KiB"'),
        ("buffer", "1KiB", '"1KiB"', 'at least "4KiB"'),
        ("limit", 5, "5", _DURATION),
        ("limit", "0s", '"0s"', "above 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_what_is_allowed(
    option: str, value: object, shown: str, allowed: str
) -> None:
    (problem,) = _problems({"probe": {"wiggle": {option: value}}})
    assert problem.startswith(f"probe.wiggle.{option} = {shown}: has to be {allowed}")


def test_a_number_beyond_a_float_is_told_what_is_allowed() -> None:
    (problem,) = _problems({"probe": {"wiggle": {"share": 10**400}}})
    assert problem.endswith(f": has to be {_NUMBER}")


@pytest.mark.parametrize("value", ["a\nb", "\x1b[31mred", "a\rb"])
def test_a_problem_is_one_line_that_is_safe_to_print(value: str) -> None:
    problems = _problems({value: 1, "probe": {"wiggle": {"mode": value, value: 1}}})
    assert len(problems) == 3
    assert all(problem.isprintable() for problem in problems)


def test_a_misspelt_word_gets_a_suggestion() -> None:
    (problem,) = _problems({"probe": {"wiggle": {"mode": "carefull"}}})
    assert problem == 'probe.wiggle.mode = "carefull": has to be one of fast, careful; did you mean careful?'


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"ruin": {}}, "ruin: unknown key, did you mean run?"),
        ({"probes": {}}, "probes: unknown key, did you mean probe?"),
        ({"zzz": 1}, "zzz: unknown key (available: run, probe, aggregate, export)"),
        ({"run": {"durations": "1s"}}, "run.durations: unknown key, did you mean duration?"),
        ({"run": {"zzz": 1}}, "run.zzz: unknown key (available: duration, interval)"),
        ({"probe": {"wiggle": {"modes": 1}}}, "probe.wiggle.modes: unknown key, did you mean mode?"),
        ({"export": [{"kind": "paper", "pat": "x"}]}, "export[0].pat: unknown key, did you mean path?"),
        ({"export": [{"kind": "screen"}, {"kind": "screen", "row": 1}]}, "export[1].row: unknown key, did you mean rows?"),  # noqa: E501
        ({"probe": {"wigle": {}}}, "probe.wigle: unknown probe 'wigle', did you mean wiggle?"),
        ({"export": [{"kind": "papper"}]}, "export[0].kind: unknown exporter 'papper', did you mean paper?"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_an_error_with_a_suggestion(document: dict[str, Any], problem: str) -> None:
    assert _problems(document) == [problem]


def test_a_probe_to_run_that_nobody_has_gets_a_suggestion() -> None:
    assert _problems({}, "wigle") == ["unknown probe 'wigle', did you mean wiggle?"]


def test_a_plugin_that_cannot_be_used_is_a_problem_like_any_other() -> None:
    document = {"probe": {"broken": {}}, "export": [{"kind": "broken"}], "run": {"interval": 1}}
    assert [problem.split(":")[0] for problem in _problems(document)] == [
        "run.interval = 1",
        "probe.broken",
        "export[0].kind",
    ]


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        ({"run": 5}, "run", "5"),
        ({"run": []}, "run", "[]"),
        ({"probe": "wiggle"}, "probe", '"wiggle"'),
        ({"probe": []}, "probe", "[]"),
        ({"probe": {"wiggle": 5}}, "probe.wiggle", "5"),
        ({"probe": {"wiggle": True}}, "probe.wiggle", "true"),
        ({"export": {"kind": "paper"}}, "export", '{kind = "paper"}'),
        ({"export": "paper"}, "export", '"paper"'),
        ({"export": ["paper"]}, "export", '["paper"]'),
    ],
)
def test_what_has_to_be_a_table_or_a_list_of_tables_is_named(document: dict[str, Any], path: str, value: str) -> None:
    (problem,) = _problems(document)
    assert problem.startswith(f"{path} = {value}: has to be ")
    assert "table" in problem


@pytest.mark.parametrize("entry", [{}, {"path": "x"}, {"kind": 5}, {"kind": ["paper"]}, {"kind": True}])
def test_an_exporter_without_a_kind_is_told_how_to_give_one(entry: dict[str, Any]) -> None:
    (problem,) = _problems({"export": [{"kind": "screen"}, entry]})
    assert problem.startswith("export[1].kind")
    assert problem.endswith('has to name an exporter, such as kind = "json"')


def test_a_kind_that_is_no_string_is_shown() -> None:
    (problem,) = _problems({"export": [{"kind": 5}]})
    assert problem.startswith("export[0].kind = 5: has to ")


def test_an_option_that_has_to_be_given_is_missed() -> None:
    assert _problems({}, "wobble") == ["probe.wobble.device: is missing"]


def test_what_two_options_together_do_not_allow_is_said_by_the_class() -> None:
    table = {"device": "eth0", "low": 2, "high": 1}
    assert _problems({"probe": {"wobble": table}}, "wobble") == ["probe.wobble: low has to be at most high"]


@pytest.mark.parametrize(
    ("table", "start"),
    [
        ({"duration": 60}, "run.duration = 60: has to be a duration"),
        ({"duration": "0s"}, 'run.duration = "0s": has to be above 0'),
        ({"interval": "99ms"}, 'run.interval = "99ms": has to be at least "100ms"'),
        ({"interval": True}, "run.interval = true: has to be a duration"),
    ],
)
def test_the_run_table_is_checked_too(table: dict[str, Any], start: str) -> None:
    (problem,) = _problems({"run": table})
    assert problem.startswith(start)


def test_every_problem_is_reported_at_once_each_on_a_line_with_the_file() -> None:
    document = {
        "ruin": 1,
        "run": {"interval": 5, "x": 1},
        "probe": {"wiggle": {"mode": "slow", "count": "5", "x": 1}, "nobody": {}},
        "export": [{"path": "x"}, {"kind": "screen", "rows": "3"}],
    }
    with pytest.raises(ConfigError) as caught:
        structure(document, ("wiggle",), _PROBES, _AGGREGATORS, _EXPORTERS, "run.toml")
    assert [problem.split(" ")[0].rstrip(":") for problem in caught.value.problems] == [
        "ruin", "run.interval", "run.x", "probe.wiggle.mode", "probe.wiggle.count", "probe.wiggle.x", "probe.nobody",
        "export[0].kind", "export[1].rows",
    ]  # fmt: skip
    assert caught.value.message == "\n".join(f"run.toml: {problem}" for problem in caught.value.problems)
    assert caught.value.exit_code == 2


def test_tables_of_probes_that_do_not_run_are_checked_but_not_returned() -> None:
    assert _problems({"probe": {"wobble": {"device": 5}}}) == ["probe.wobble.device = 5: has to be a string"]
    assert list(_settings({"probe": {"wobble": {"device": "eth0"}}}).probes) == ["wiggle"]


_WOBBLE = {"wobble": {"device": "eth0"}}


@pytest.mark.parametrize("path", ["-", "{probe}.json", "out/{probe}"])
def test_several_probes_may_share_standard_output_or_a_template(path: str) -> None:
    settings = _settings({"probe": _WOBBLE, "export": [{"kind": "paper", "path": path}]}, "wiggle", "wobble")
    assert settings.exports[0].settings == Paper(path)


def test_several_probes_may_not_replace_each_others_file() -> None:
    export = [{"kind": "screen"}, {"kind": "paper", "path": "x.json"}]
    (problem,) = _problems({"probe": _WOBBLE, "export": export}, "wiggle", "wobble")
    assert problem == 'export[1].path = "x.json": has to contain {probe} when several probes run'
    assert _settings({"export": export}, "wiggle").exports[1].settings == Paper("x.json")


@pytest.mark.parametrize(
    "path", ["", "{prob}.json", "{}", "{0}", "{probe", "probe}", "{probe.name}", "{probe[0]}", "{probe}{x}"]
)
def test_a_path_with_another_placeholder_is_refused(path: str) -> None:
    (problem,) = _problems({"export": [{"kind": "paper", "path": path}]})
    assert problem == f'export[0].path = "{path}": has to be {PATH_RULE}'


@pytest.mark.parametrize("path", ["{probe:d}", "{probe!x}", "{probe:{x}}"])
def test_a_placeholder_that_cannot_be_filled_in_is_refused(path: str) -> None:
    (problem,) = _problems({"export": [{"kind": "paper", "path": path}]})
    assert problem == f'export[0].path = "{path}": has to be {PATH_RULE}'


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("probe.wiggle.share=0.1", 0.1),
        ("probe.wiggle.share = 0.1", 0.1),
        ("probe.wiggle.share=5", 5),
        ("probe.wiggle.share=true", True),
        ('probe.wiggle.share="5"', "5"),
        ("probe.wiggle.share=careful", "careful"),
        ("probe.wiggle.share=60s", "60s"),
        ("probe.wiggle.share=a=b", "a=b"),
        ("probe.wiggle.share=", ""),
        ("probe.wiggle.share=[1, 2]", [1, 2]),
    ],
)
def test_set_reads_a_toml_value_and_a_bare_word_as_a_string(assignment: str, value: object) -> None:
    made = _set({}, assignment)
    assert made["probe"] == {"wiggle": {"share": value}}
    assert type(made["probe"]["wiggle"]["share"]) is type(value)


def _set(tables: dict[str, Any], *assignments: str) -> Mapping[str, Any]:
    return overrides(Document(tables), {}, (), assignments).tables


def test_set_overrides_one_value_and_keeps_the_others() -> None:
    tables: dict[str, Any] = {"run": {"duration": "1s", "interval": "2s"}, "probe": {}}
    made = _set(tables, "run.duration=5s")
    assert made["run"] == {"duration": "5s", "interval": "2s"}
    assert tables["run"]["duration"] == "1s"


@pytest.mark.parametrize(
    "assignment",
    ["", "run.duration", "=5", ".duration=5", "run.=5", "run..duration=5", " =5", "a b=5", '"a=5', "a\n.b=5", "[0]=5",
     '"\\x".a=5', "export[0]=5", ".".join("a" * 50) + "=5"],
)  # fmt: skip
def test_set_without_path_or_value_is_told_how_to_write_it(assignment: str) -> None:
    with pytest.raises(InputError, match=r"has to be PATH=VALUE, such as probe\.latency\.sample=0\.1") as caught:
        _set({}, assignment)
    assert caught.value.message.startswith("--set ")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("assignment", "made"),
    [
        ('probe."odd name".share=1', {"probe": {"odd name": {"share": 1}}}),
        ("probe.'a=b.c'.share=1", {"probe": {"a=b.c": {"share": 1}}}),
        ('"pr\\u006fbe" . wiggle . share = 1', {"probe": {"wiggle": {"share": 1}}}),
        ("export[1].path=x", {"export": [{"kind": "screen"}, {"kind": "paper", "path": "x"}]}),
    ],
)
def test_set_takes_a_path_as_messages_write_it(assignment: str, made: dict[str, Any]) -> None:
    tables = {"export": [{"kind": "screen"}, {"kind": "paper"}]} if "export" in made else {}
    assert {name: entry for name, entry in _set(tables, assignment).items() if name in made} == made


@pytest.mark.parametrize(
    ("tables", "assignment", "message"),
    [
        ({"run": 5}, "run.duration=5s", "run is not a table"),
        ({"run": "x"}, "run.duration=5s", "run is not a table"),
        ({"run": []}, "run.duration=5s", "run is a list; one of its entries is run[0]"),
        ({"export": [{"kind": "paper"}]}, "export.path=x", "export is a list; one of its entries is export[0]"),
        ({"export": [{}]}, "export[1].path=x", "there is no export[1]: export has 1 entries, and they count from 0"),
        ({}, "export[0].path=x", "there is no export[0]: export is not a list, and they count from 0"),
        ({"export": [5]}, "export[0].path=x", "export[0] is not a table"),
        ({}, "probe.wiggle.names=[a, b]", "[a, b] is not valid TOML: "),
    ],
)
def test_set_through_something_that_is_no_table_is_refused(
    tables: dict[str, Any], assignment: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        _set(tables, assignment)
    assert caught.value.message.startswith(f"--set {assignment}: {message}")


def _run(
    tables: dict[str, Any], *assignments: str, exports: tuple[str, ...] = ("screen",), duration: str = "1s"
) -> Settings:
    made = overrides(Document(tables), {"duration": duration, "interval": None}, exports, assignments)
    return structure(made.tables, ("wiggle",), _PROBES, _AGGREGATORS, _EXPORTERS, "", made.spelled)


@pytest.mark.parametrize(
    "text", ["5", "-0x10", "1_000", "1e3", "inf", "nan", "true", "2020-01-01", "2020-01-01T00:00:00Z", "07:30:00"]
)
def test_an_option_that_is_a_text_takes_any_bare_word(text: str) -> None:
    settings = _run({"export": [{"kind": "paper"}]}, f"probe.wiggle.label={text}", f"export[0].path= {text} ")
    assert settings.probes["wiggle"].label == text
    assert settings.exports[0].settings.path == text


def test_a_bare_word_counts_until_it_is_overridden() -> None:
    label = "probe.wiggle.label"
    assert _run({}, f"{label}=5", f'{label}="6"').probes["wiggle"].label == "6"
    assert _run({}, f"{label}=5", 'probe={wiggle = {label = "7"}}').probes["wiggle"].label == "7"
    with pytest.raises(ConfigError, match="has to be a string"):
        _run({}, f"{label}=5", "probe.wiggle={label = 5}")


def test_a_bare_word_for_a_choice_is_shown_as_it_was_written() -> None:
    with pytest.raises(ConfigError, match=r'mode = "true": has to be one of fast, careful'):
        _run({}, "probe.wiggle.mode=true")


@pytest.mark.parametrize("run", [1, [], ["5s"], datetime.date(2020, 1, 1), "x", 1.5, True])
def test_options_for_a_run_that_is_no_table_leave_that_to_be_told(run: object) -> None:
    with pytest.raises(ConfigError, match=f"^run = {re.escape(show(run))}: has to be a table$"):
        _run({"run": run})


@pytest.mark.parametrize("export", [0, 1, "", "json", {}, {"kind": "paper"}, False, [1], datetime.time(1, 2)])
def test_exporters_beside_an_export_that_is_no_list_leave_that_to_be_told(export: object) -> None:
    shown = f"export = {show(export)}" if not isinstance(export, list) else "export = [1"
    for exports in ((), ("screen",)):
        with pytest.raises(ConfigError, match=f"^{re.escape(shown)}.*has to be a list of tables, each headed "):
            _run({"export": export}, exports=exports)


def test_exporters_are_added_to_those_of_the_file_and_stdout_to_none() -> None:
    file = {"export": [{"kind": "screen"}]}
    made = overrides(Document(file), {}, ("paper:a:b", "screen"), ())
    assert made.tables["export"] == [{"kind": "screen"}, {"kind": "paper", "path": "a:b"}, {"kind": "screen"}]
    empty: tuple[dict[str, Any], ...] = ({}, {"export": []})
    for tables in empty:
        assert overrides(Document(tables), {}, (), ()).tables["export"] == [{"kind": "stdout"}]


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[run]\nduration = "5s"\n[probe.wiggle]\nlabel = "Zürich"\n[[export]]\nkind = "paper"\n', "utf-8")
    assert read(file).tables == {
        "run": {"duration": "5s"},
        "probe": {"wiggle": {"label": "Zürich"}},
        "export": [{"kind": "paper"}],
    }


def test_a_missing_file_is_named_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "no.toml")
    assert caught.value.message == f"{tmp_path / 'no.toml'}: there is no such file"
    assert "probekit config init" in caught.value.hint


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert caught.value.message == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_that_is_not_utf8_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes('label = "Zürich"'.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read(file)
    assert caught.value.message == f"{file}: is not UTF-8: byte 0xfc in line 1"


@pytest.mark.parametrize(
    ("text", "place"), [("[run\n", "line 1"), ("[run]\nduration = 60s\n", "line 2"), ("a = 1\na = 2\n", "line 2")]
)
def test_a_syntax_error_is_named_with_its_line(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        read(file)
    assert caught.value.message.startswith(f"{file}: ")
    assert place in caught.value.message


_LARGE = ["9" * 5000, "-" + "9" * 5000, "0x" + "f" * 3600, "0o" + "7" * 5000, "0b" + "1" * 20_000, "1" * 20, "1e400"]
_DEEP = ["[" * 2000 + "]" * 2000, "[" * 50 + "]" * 50, "{a = " * 50 + "1" + "}" * 50]


@pytest.mark.parametrize("value", [*_LARGE, *_DEEP], ids=lambda value: value[:4])
def test_a_value_beyond_what_toml_has_is_an_error_of_the_input(tmp_path: Path, value: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"[probe.wiggle]\nshare = {value}\n")
    with pytest.raises(InputError) as caught:
        read(file)
    assert caught.value.message.startswith(f"{file}: ")
    assert ("too large" if value in _LARGE else f"nested deeper than {DEEPEST}") in caught.value.message
    with pytest.raises(InputError, match=r"^(--set )?probe\.wiggle\.share"):
        _run({}, f"probe.wiggle.share={value}")


@pytest.mark.parametrize("option", ["share", "count", "wait", "buffer", "label", "mode", "limit", "loud", "zzz"])
@pytest.mark.parametrize(
    "value",
    [int("f" * 3600, 16), -(1 << 63) - 1, 1 << 63, "9" * 100_000, "9" * 90 + "GiB"],
    ids=["huge", "below", "above", "long", "size"],
)
def test_what_no_option_can_be_is_refused_in_one_short_line(option: str, value: Any) -> None:
    if (option, type(value)) == ("label", str):
        return
    (problem,) = _problems({"probe": {"wiggle": {option: value}}})
    assert len(problem) < 500
    assert problem.startswith(f"probe.wiggle.{option}")
    assert "set_int_max_str_digits" not in problem


def test_the_longest_lists_of_problems_are_cut() -> None:
    problems = _problems({"probe": {"wiggle": {f"x{number}": number for number in range(MOST + 7)}}})
    assert (len(problems), problems[-1]) == (MOST + 1, "and 7 more problems")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b'\xef\xbb\xbf[run]\r\nduration = "5s"\r\n')
    assert read(file).tables == {"run": {"duration": "5s"}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes("\ufeff[run]".encode(encoding))
    with pytest.raises(InputError, match="is UTF-16; TOML is UTF-8") as caught:
        read(file)
    assert caught.value.hint == "save it as UTF-8"


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text("[run]\n" + "# x\n" * 50_000 + 'duration = "5s"'))
    writer.start()
    assert read(fifo).tables == {"run": {"duration": "5s"}}
    writer.join()


@pytest.mark.parametrize("written", [False, True], ids=["nobody", "half"])
def test_a_pipe_that_nobody_writes_to_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    monkeypatch.setattr(reading, "PATIENCE", 0.2)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR) if written else -1
    try:
        if written:
            os.write(writer, b"[run]")
        with pytest.raises(InputError, match="fifo: nobody wrote to it, or not all, for "):
            read(fifo)
    finally:
        if written:
            os.close(writer)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/random", "large"])
def test_what_has_no_end_is_no_configuration(tmp_path: Path, name: str) -> None:
    file = tmp_path / name  # an absolute name stays what it is
    if name == "large":
        file.write_text("#" * (LARGEST + 1))
    with pytest.raises(InputError, match="is larger than 1 MiB: no configuration is"):
        read(file)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\x1b[31m", "\udcff"])
def test_a_file_of_an_odd_name_is_named_in_one_short_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime.date(2020, 1, 1), "2020-01-01"),
        (datetime.datetime(2020, 1, 1, 2, 3, tzinfo=datetime.timezone.utc), "2020-01-01T02:03:00+00:00"),
        (datetime.time(1, 2, 3), "01:02:03"),
        ([True, {"a b": [1.5, float("inf")]}], '[true, {"a b" = [1.5, inf]}]'),
        ('say "x" \\ \u202e', '"say \\"x\\" \\\\ \\u202e"'),
        ("a" * 300, '"' + "a" * 200 + "…" + '"'),
    ],
)
def test_a_value_is_shown_as_toml_has_it(value: object, shown: str) -> None:
    (problem,) = _problems({"probe": {"wiggle": {"count": value}}})
    assert problem == f"probe.wiggle.count = {shown}: has to be a whole number"


def test_a_text_has_no_nul() -> None:
    (problem,) = _problems({"probe": {"wiggle": {"label": "a\0b"}}})
    assert problem == 'probe.wiggle.label = "a\\u0000b": has to be a string without \\u0000'


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x.json", "x.json"), ("x.json", "./x.json"), ("x.json", "a/../x.json"), ("wiggle.json", "{probe}.json"),
        ("link.json", "x.json"), ("{probe}/x", "wiggle/x"),
    ],
)  # fmt: skip
def test_two_exporters_may_not_write_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.json").symlink_to("x.json")
    chain = [{"kind": "screen"}, {"kind": "paper", "path": first}, {"kind": "paper", "path": second}]
    assert _problems({"export": chain}) == [
        f'export[2].path = "{second}": export[1] writes there already, with path = "{first}"'
    ]


@pytest.mark.parametrize(
    ("first", "second"), [("-", "-"), ("x.json", "y.json"), ("/dev/null", "/dev/null"), ("{probe}", "{probe}.x")]
)
def test_two_exporters_may_write_beside_each_other(first: str, second: str) -> None:
    chain = [{"kind": "paper", "path": first}, {"kind": "paper", "path": second}]
    assert len(_settings({"export": chain}).exports) == 2


def test_an_aggregator_is_added_to_the_probe_that_it_names() -> None:
    entry = {"kind": "tally", "probe": "wiggle", "path": "x"}
    assert _settings({"aggregate": [entry]}).aggregates == (Added("tally", "wiggle", Paper("x")),)


def test_an_aggregator_of_a_probe_that_does_not_run_is_checked_and_left_out() -> None:
    document: dict[str, Any] = {
        "probe": {"wobble": {"device": "x"}},
        "aggregate": [{"kind": "tally", "probe": "wobble"}],
    }
    assert _settings(document, "wiggle").aggregates == ()
    document["aggregate"][0]["path"] = 3
    assert _problems(document, "wiggle") == ["aggregate[0].path = 3: has to be a string"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"kind": "tally"}, "aggregate[0].probe: has to name the probe that it is added to"),
        ({"kind": "tally", "probe": 3}, "aggregate[0].probe = 3: has to name the probe that it is added to"),
        (
            {"kind": "tally", "probe": "wabble"},
            "aggregate[0].probe: unknown probe 'wabble', did you mean wobble?",
        ),
        ({"probe": "wiggle"}, "aggregate[0].kind: has to name an aggregator; `probekit list` shows them"),
        (
            {"kind": "taly", "probe": "wiggle"},
            "aggregate[0].kind: unknown aggregator 'taly', did you mean tally?",
        ),
    ],
)
def test_an_aggregator_that_cannot_be_added_is_named(entry: dict[str, Any], problem: str) -> None:
    assert _problems({"aggregate": [entry]}) == [problem]


def test_an_aggregator_is_added_once() -> None:
    entry = {"kind": "tally", "probe": "wiggle"}
    assert _problems({"aggregate": [entry, entry]}) == ["aggregate[1]: tally is added to wiggle already"]


@frozen
class Listing:
    """Lists."""

    colours: tuple[Literal["red", "green"], ...] = option(("red",), help="colours")
    names: tuple[str, ...] = option((), help="names", allowed="at most two", check=lambda v: len(v) <= 2)


_LISTING = _lookup("probe", {"listing": Listing})


def _listing(**table: Any) -> Settings:
    return structure({"probe": {"listing": table}}, ("listing",), _LISTING, _AGGREGATORS, _EXPORTERS, "")


def test_a_list_becomes_a_tuple_and_is_checked_as_a_whole() -> None:
    assert _listing(colours=["green", "red"], names=["a"]).probes["listing"] == Listing(("green", "red"), ("a",))
    assert _listing().probes["listing"] == Listing()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"colours": "red"}, 'probe.listing.colours = "red": has to be a list, such as ["NAME"]'),
        (
            {"colours": ["gren"]},
            'probe.listing.colours = ["gren"]: entry 1, "gren": has to be one of red, green; did you mean green?',
        ),
        ({"names": ["a", 1]}, 'probe.listing.names = ["a", 1]: entry 2, 1: has to be a string'),
        ({"names": ["a", "b", "c"]}, 'probe.listing.names = ["a", "b", "c"]: has to be at most two'),
    ],
)
def test_each_entry_of_a_list_is_checked_as_one_value_would_be(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _listing(**table)
    assert caught.value.problems == [problem]


@frozen
class Inner:
    """A table within a table."""

    depth: int = option(1, help="how deep", allowed="at least 1", check=lambda v: v >= 1)


@frozen
class Levels:
    """Choices that are no words, and a table within."""

    level: Literal[1, 2] = option(1, help="level")
    within: Inner = option(Inner(), help="more")
    several: tuple[Inner, ...] = option((), help="more of them")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"level": True}, "probe.levels.level = true: has to be one of 1, 2"),
        ({"level": 1.0}, "probe.levels.level = 1.0: has to be one of 1, 2"),
        ({"level": "1"}, 'probe.levels.level = "1": has to be one of 1, 2; did you mean 1?'),
        ({"within": 1}, "probe.levels.within = 1: has to be a table"),
        ({"within": {"depth": 0}}, "probe.levels.within.depth = 0: has to be at least 1"),
        ({"within": {"depht": 1}}, "probe.levels.within.depht: unknown key, did you mean depth?"),
        ({"several": [1]}, "probe.levels.several = [1]: entry 1, 1: has to be a table"),
        ({"several": [{}, {"depth": 0}]}, "probe.levels.several[1].depth = 0: has to be at least 1"),
    ],
)
def test_choices_of_any_type_and_tables_within_are_checked_as_closely(table: dict[str, Any], problem: str) -> None:
    find = _lookup("probe", {"levels": Levels})
    with pytest.raises(ConfigError) as caught:
        structure({"probe": {"levels": table}}, ("levels",), find, _AGGREGATORS, _EXPORTERS, "")
    assert caught.value.problems == [problem]
