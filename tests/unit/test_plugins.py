"""Plugins of installed distributions: imported when asked for, and refused with a word on whose fault it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probekit.errors import InputError, PluginError
from probekit.plugins import EXPORTERS, PROBES, PluginInfo, Plugins, discover

_EXPORTER = """
from attrs import frozen
from probekit import hook

@frozen
class Config:
    pass

@hook
def probekit_config():
    return Config

@hook
def probekit_export(exporter, config):
    return exporter, config
"""
_PROBE = """
from probekit import hook

@hook
def probekit_config(name):
    return name

@hook
def probekit_attach(config):
    return config

@hook
def probekit_decode(source, map):
    return source, map

@hook
def probekit_aggregate():
    return "aggregator"
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution: its entry points and its modules' sources."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, points: dict[str, dict[str, str]], version: str = "1.2", **modules: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for group, entries in points.items():
            lines += [f"[{group}]", *(f"{entry} = {target}" for entry, target in entries.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for module, source in modules.items():
            (tmp_path / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def _export(plugins: Plugins, name: str = "wig", **arguments: Any) -> Any:
    return plugins.call(EXPORTERS, name, "probekit_export", **{"exporter": name, "config": None, **arguments})


def _one(install: Install, source: str) -> Plugins:
    install("wig-kit", {EXPORTERS: {"wig": "wig_exporter"}}, wig_exporter=source)
    return discover()


def test_what_is_installed_is_found_by_group_and_name(install: Install) -> None:
    install("wig-kit", {PROBES: {"wig": "wig_probe"}, EXPORTERS: {"wag": "wig_exporter"}, "other": {"no": "wig_no"}})
    found = discover()
    assert "wig" in found.names(PROBES)
    assert "wag" in found.names(EXPORTERS)
    assert "wig" not in found.names(EXPORTERS)
    assert not {"no"} & {*found.names(PROBES), *found.names(EXPORTERS)}
    assert list(found.names(EXPORTERS)) == sorted(found.names(EXPORTERS))


def test_the_built_in_plugins_come_by_entry_points_too() -> None:
    found = discover()
    assert "latency" in found.names(PROBES)
    assert {"csv", "json", "jsonl", "stdout"} <= set(found.names(EXPORTERS))


def test_a_plugin_is_described_with_its_module_package_and_version_without_importing_it(install: Install) -> None:
    install("wig-kit", {PROBES: {"wig": "wig_probe"}}, version="3.4", wig_probe="raise SystemError")
    assert PluginInfo(PROBES, "wig", "wig_probe", "wig-kit", "3.4") in discover().describe()
    assert "wig_probe" not in sys.modules


def test_a_plugin_is_imported_when_its_name_is_asked_for_and_no_other_is(install: Install) -> None:
    install(
        "wig-kit", {EXPORTERS: {"wig": "wig_one", "wag": "wig_two"}}, wig_one=_EXPORTER, wig_two="raise SystemError"
    )
    found = discover()
    assert not {"wig_one", "wig_two"} & set(sys.modules)
    _export(found)
    assert {"wig_one", "wig_two"} & set(sys.modules) == {"wig_one"}


def test_a_hook_gets_the_arguments_it_wants(install: Install) -> None:
    install("wig-kit", {PROBES: {"wig": "wig_probe"}}, wig_probe=_PROBE)
    found = discover()
    assert found.call(PROBES, "wig", "probekit_config", name="wig") == "wig"
    assert found.call(PROBES, "wig", "probekit_attach", probe="wig", config="c", kernel="k") == "c"
    assert found.call(PROBES, "wig", "probekit_decode", probe="wig", config="c", source="s", map="m") == ("s", "m")
    assert found.call(PROBES, "wig", "probekit_aggregate", probe="wig", config="c", attached=()) == "aggregator"


def test_a_hook_is_called_on_the_plugin_of_that_name_alone(install: Install) -> None:
    names = ("one", "two", "three")
    sources = {f"wig_{name}": _EXPORTER.replace("return exporter, config", f"return {name!r}") for name in names}
    install("wig-kit", {EXPORTERS: {name: f"wig_{name}" for name in names}}, **sources)
    found = discover()
    for _ in range(2):
        assert [_export(found, name) for name in names] == list(names)


def test_an_unknown_name_gets_a_suggestion_or_the_list(install: Install) -> None:
    install("wig-kit", {PROBES: {"wiggle": "wig_probe"}})
    found = discover()
    with pytest.raises(InputError, match=r"^unknown probe 'wigle', did you mean wiggle\?$"):
        found.call(PROBES, "wigle", "probekit_config", name="wigle")
    with pytest.raises(InputError, match=r"^unknown probe 'zzz' \(there is: .*wiggle.*\)$"):
        found.call(PROBES, "zzz", "probekit_config", name="zzz")
    with pytest.raises(InputError, match=r"^unknown exporter 'wiggle'"):
        found.call(EXPORTERS, "wiggle", "probekit_config", name="wiggle")


_OWNER = r"^exporter wig \(wig_exporter, from wig-kit\)"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import wig_nothing", "ModuleNotFoundError: No module named 'wig_nothing'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError: "),
    ],
)
def test_an_import_error_names_the_plugin_and_the_package(install: Install, source: str, error: str) -> None:
    with pytest.raises(PluginError, match=f"{_OWNER} cannot be imported: {error}") as caught:
        _export(_one(install, source))
    assert caught.value.exit_code == 2


def test_a_module_that_is_not_there_names_the_plugin_and_the_package(install: Install) -> None:
    install("wig-kit", {EXPORTERS: {"wig": "wig_nowhere"}})
    with pytest.raises(PluginError, match=r"^exporter wig \(wig_nowhere, from wig-kit\) cannot be imported: "):
        _export(discover())


def test_a_missing_hook_is_named(install: Install) -> None:
    install("wig-kit", {PROBES: {"wig": "wig_exporter"}}, wig_exporter=_EXPORTER)
    with pytest.raises(PluginError, match=r"does not implement probekit_attach, probekit_decode, probekit_aggregate$"):
        discover().call(PROBES, "wig", "probekit_config", name="wig")


def test_a_function_that_is_not_marked_is_no_hook(install: Install) -> None:
    with pytest.raises(PluginError, match="probekit_export"):
        _export(_one(install, _EXPORTER.replace("@hook\ndef probekit_export", "def probekit_export")))


def test_a_hook_that_returns_nothing_is_named(install: Install) -> None:
    source = _EXPORTER.replace("return exporter, config", "pass")
    with pytest.raises(PluginError, match="exporter wig: probekit_export of wig_exporter returned nothing"):
        _export(_one(install, source))


_WRONG_ARGUMENT = _EXPORTER.replace("(exporter, config):\n    return exporter, config", "(expotrer):\n    return 1")
_UNKNOWN_HOOK = _EXPORTER + "\n@hook\ndef probekit_exprot(config):\n    return 1\n"


@pytest.mark.parametrize(("source", "word"), [(_WRONG_ARGUMENT, "expotrer"), (_UNKNOWN_HOOK, "probekit_exprot")])
def test_a_hook_that_breaks_the_contract_is_refused_with_the_wrong_word(
    install: Install, source: str, word: str
) -> None:
    with pytest.raises(PluginError, match=f"(?s){_OWNER}: .*{word}"):
        _export(_one(install, source))


@pytest.mark.parametrize("source", [_WRONG_ARGUMENT, _UNKNOWN_HOOK])
def test_a_refused_plugin_stays_refused(install: Install, source: str) -> None:
    found = _one(install, source)
    messages = set()
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            _export(found)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_refused_plugin_does_not_take_others_down(install: Install) -> None:
    install(
        "wig-kit", {EXPORTERS: {"bad": "wig_bad", "wig": "wig_exporter"}}, wig_bad=_UNKNOWN_HOOK, wig_exporter=_EXPORTER
    )  # fmt: skip
    found = discover()
    with pytest.raises(PluginError):
        _export(found, "bad")
    assert _export(found, "wig") == ("wig", None)


def test_two_packages_with_one_name_are_both_named_and_neither_is_imported(install: Install) -> None:
    install("wig-kit", {EXPORTERS: {"wig": "wig_one"}}, wig_one=_EXPORTER)
    install("wag-kit", {EXPORTERS: {"wig": "wig_two"}}, wig_two=_EXPORTER)
    found = discover()
    with pytest.raises(PluginError, match="exporter wig is installed twice: by wag-kit and wig-kit") as caught:
        _export(found)
    assert caught.value.hint == "uninstall one of them"
    assert not {"wig_one", "wig_two"} & set(sys.modules)
    assert {info.distribution for info in found.describe() if info.name == "wig"} == {"wag-kit", "wig-kit"}


def test_a_package_that_two_searched_folders_have_is_one(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wig-kit", {EXPORTERS: {"wig": "wig_exporter"}}, wig_exporter=_EXPORTER)
    again = tmp_path / "again"
    again.mkdir()
    (again / "wig-kit-1.2.dist-info").symlink_to(tmp_path / "wig-kit-1.2.dist-info")
    monkeypatch.syspath_prepend(again)
    assert _export(discover()) == ("wig", None)


def test_a_probe_and_an_exporter_may_have_one_name(install: Install) -> None:
    install(
        "wig-kit", {PROBES: {"wig": "wig_probe"}, EXPORTERS: {"wig": "wig_exporter"}},
        wig_probe=_PROBE, wig_exporter=_EXPORTER,
    )  # fmt: skip
    found = discover()
    assert _export(found) == ("wig", None)
    assert found.call(PROBES, "wig", "probekit_config", name="wig") == "wig"
