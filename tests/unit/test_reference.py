"""The written configuration and the reference: every option, and nothing that would be refused."""

from __future__ import annotations

import importlib
import re
from typing import Any, Literal

import attrs
import pytest
import tomli
from attrs import frozen

from probekit import Bytes, Seconds, option
from probekit.config import RunSettings, structure
from probekit.config.reference import markdown, toml
from probekit.errors import InputError
from probekit_latency.config import LatencyConfig

_PROBES: dict[str, type] = {"latency": LatencyConfig}
_EXPORTERS: dict[str, type] = {
    name: importlib.import_module(f"probekit.export.{name}").probekit_config()
    for name in ("csv", "json", "jsonl", "stdout")
}
_ALL = [("run", RunSettings), *_PROBES.items(), *_EXPORTERS.items()]
_each_option = pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(kind, field, id=f"{name}-{field.name}") for name, kind in _ALL for field in attrs.fields(kind)],
)


@frozen
class Wiggle:
    """Wiggles.

    Second paragraph.
    """

    mode: Literal["fast", "careful"] = option("careful", help="how it goes")
    share: float = option(0.5, help="how much", allowed="at most 1", check=lambda v: v <= 1)
    count: int = option(10, help="how many")
    loud: bool = option(True, help="whether to shout")
    label: str = option("x", help="what to call it")
    wait: Seconds = option(Seconds(0.25), help="how long")
    buffer: Bytes = option(Bytes(4 << 20), help="how big")
    limit: Seconds | None = option(None, help="until when", example='"60s"')


@frozen
class Wobble:
    """Wobbles."""

    device: str = option(help="which device", example='"eth0"')


@frozen
class Nothing:
    """Takes nothing."""


def _type_of(known: dict[str, type]) -> Any:
    def find(name: str) -> type:
        if name not in known:
            raise InputError(f"unknown {name}")
        return known[name]

    return find


def _uncommented(text: str) -> str:
    """The file with the options that it only shows."""
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


def test_the_written_configuration_has_every_default() -> None:
    document = tomli.loads(toml(_PROBES, _EXPORTERS))
    settings = structure(document, ("latency",), _type_of(_PROBES), _type_of({}), _type_of(_EXPORTERS), "")
    assert settings.run == RunSettings()
    assert settings.probes == {"latency": LatencyConfig()}
    assert [export.kind for export in settings.exports] == list(_EXPORTERS)
    for export in settings.exports:
        if hasattr(export.settings, "path"):
            assert export.settings == _EXPORTERS[export.kind](path=f"{{probe}}.{export.kind}")
        else:
            assert export.settings == _EXPORTERS[export.kind]()


def test_the_written_configuration_is_fit_for_several_probes() -> None:
    probes = {**_PROBES, "wiggle": Wiggle}
    document = tomli.loads(toml(probes, _EXPORTERS))
    settings = structure(document, tuple(probes), _type_of(probes), _type_of({}), _type_of(_EXPORTERS), "")
    assert settings.probes == {"latency": LatencyConfig(), "wiggle": Wiggle()}


def test_what_is_shown_commented_out_is_allowed_too() -> None:
    document = tomli.loads(_uncommented(toml(_PROBES, _EXPORTERS)))
    settings = structure(document, ("latency",), _type_of(_PROBES), _type_of({}), _type_of(_EXPORTERS), "")
    assert settings.run.duration is not None
    assert set(document["run"]) == {field.name for field in attrs.fields(RunSettings)}
    assert set(document["probe"]["latency"]) == {field.name for field in attrs.fields(LatencyConfig)}


def test_every_type_of_default_is_written_as_it_is_read() -> None:
    assert tomli.loads(toml({"wiggle": Wiggle, "wobble": Wobble}, {}))["probe"] == {
        "wiggle": {
            "mode": "careful",
            "share": 0.5,
            "count": 10,
            "loud": True,
            "label": "x",
            "wait": "250ms",
            "buffer": "4MiB",
        },
        "wobble": {"device": "eth0"},
    }


def test_a_table_is_headed_by_what_its_class_says_of_itself() -> None:
    lines = toml({"wiggle": Wiggle}, {"nothing": Nothing}).splitlines()
    assert lines[lines.index("[probe.wiggle]") - 1] == "# Wiggles."
    assert lines[lines.index("[[export]]") - 1] == "# Takes nothing."
    assert "Second paragraph" not in "\n".join(lines)


@_each_option
def test_the_written_configuration_explains_every_option(kind: type, field: attrs.Attribute[Any]) -> None:
    lines = toml(_PROBES, _EXPORTERS).splitlines()
    places = [i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{field.name} = ")]
    assert any(lines[place - 1].startswith(f"# {field.metadata['help']} (") for place in places)


@_each_option
def test_the_reference_has_a_row_for_every_option(kind: type, field: attrs.Attribute[Any]) -> None:
    rows = [line for line in markdown(_PROBES, _EXPORTERS).splitlines() if line.startswith(f"| `{field.name}` | ")]
    assert any(field.metadata["help"] in row and field.metadata["allowed"] in row for row in rows)


def test_the_reference_has_a_section_for_each_table() -> None:
    text = markdown(_PROBES, _EXPORTERS)
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## `[run]`",
        "## `[probe.latency]`",
        *(f'## `[[export]]` with `kind = "{name}"`' for name in sorted(_EXPORTERS)),
    ]


def test_the_rows_of_the_reference_have_four_cells_each() -> None:
    rows = [line for line in markdown({**_PROBES, "wiggle": Wiggle}, _EXPORTERS).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


@pytest.mark.parametrize(
    "row",
    [
        "| `mode` | `\"careful\"` | `\"fast\"`, `\"careful\"` | how it goes |",
        "| `share` | `0.5` | a number, at most 1 | how much |",
        "| `loud` | `true` | `true` or `false` | whether to shout |",
        "| `wait` | `\"250ms\"` | a duration, such as `\"60s\"` or `\"250ms\"` | how long |",
        "| `buffer` | `\"4MiB\"` | a size, such as `\"4MiB\"` | how big |",
        "| `limit` |  | a duration, such as `\"60s\"` or `\"250ms\"` | until when |",
        "| `device` | needed | a string | which device |",
    ],
)  # fmt: skip
def test_the_reference_says_default_and_what_is_allowed(row: str) -> None:
    assert row in markdown({"wiggle": Wiggle, "wobble": Wobble}, {}).splitlines()


def test_a_table_without_options_says_so() -> None:
    assert "No options." in markdown({}, {"nothing": Nothing})


def test_a_class_that_says_nothing_of_itself_is_headed_by_its_name() -> None:
    kind = attrs.make_class("Mute", {"label": option('a"\\', help="what to\ncall it")})
    kind.__annotations__ = {"label": str}
    kind.__doc__ = None
    text = toml({"odd name": kind}, {"odd": kind})
    assert "# Mute" in text.splitlines()
    assert tomli.loads(text)["probe"] == {"odd name": {"label": 'a"\\'}}
    assert "# what to call it (" in text
