"""Plugins of installed distributions: imported when asked for, and refused with a word on whose fault it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli

from probekit import cli
from probekit.cli.new import write
from probekit.errors import InputError, PluginError
from probekit.plugins import AGGREGATORS, EXPORTERS, PROBES, PluginInfo, Plugins, arguments_of, discover, distribution
from probekit.plugins.distribution import NAME

_EXPORTER = """
from attrs import frozen
from probekit import hook

@frozen
class Config:
    pass

@frozen
class Exporter:
    name: object
    config: object
    __enter__ = __exit__ = export = lambda *_: None

@hook
def probekit_config():
    return Config

@hook
def probekit_export(exporter, config):
    return Exporter(exporter, config)
"""
_PROBE = """
from pathlib import Path
from attrs import frozen
from probekit import AttachPlan, hook

@frozen
class Config:
    pass

@hook
def probekit_config(name):
    return type(name.title(), (Config,), {})

@hook
def probekit_attach(config):
    return AttachPlan(Path(__file__), (), (), {"CONFIG": config})

@hook
def probekit_decode(source, map):
    return lambda batch: (source, map, batch)

@hook
def probekit_aggregate():
    return Aggregator

class Aggregator:
    update = snapshot = lambda *_: None
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
    assert found.call(PROBES, "wig", "probekit_config", name="wig").__name__ == "Wig"
    assert found.call(PROBES, "wig", "probekit_attach", probe="wig", config=7, kernel="k").defines == {"CONFIG": 7}
    decode = found.call(PROBES, "wig", "probekit_decode", probe="wig", config="c", source="s", map="m")
    assert decode("b") == ("s", "m", "b")
    assert (
        found.call(
            PROBES, "wig", "probekit_aggregate", probe="wig", config="c", attached=(), began=0, machine=None
        ).__name__
        == "Aggregator"
    )


def test_a_hook_is_called_on_the_plugin_of_that_name_alone(install: Install) -> None:
    names = ("one", "two", "three")
    sources = {
        f"wig_{name}": _EXPORTER.replace("Exporter(exporter, config)", f"Exporter({name!r}, config)") for name in names
    }
    install("wig-kit", {EXPORTERS: {name: f"wig_{name}" for name in names}}, **sources)
    found = discover()
    for _ in range(2):
        assert [_export(found, name).name for name in names] == list(names)


def test_an_unknown_name_gets_a_suggestion_or_the_list(install: Install) -> None:
    install("wig-kit", {PROBES: {"wiggle": "wig_probe"}})
    found = discover()
    with pytest.raises(InputError, match=r"^unknown probe 'wigle', did you mean wiggle\?$"):
        found.call(PROBES, "wigle", "probekit_config", name="wigle")
    with pytest.raises(InputError, match=r"^unknown probe 'zzz' \(available: .*wiggle.*\)$"):
        found.call(PROBES, "zzz", "probekit_config", name="zzz")
    with pytest.raises(InputError, match=r"^unknown exporter 'wiggle'"):
        found.call(EXPORTERS, "wiggle", "probekit_config", name="wiggle")


_OWNER = r"^exporter wig \(wig_exporter, from wig-kit 1\.2\)"


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
    with pytest.raises(PluginError, match=r"^exporter wig \(wig_nowhere, from wig-kit 1\.2\) cannot be imported: "):
        _export(discover())


def test_a_missing_hook_is_named(install: Install) -> None:
    install("wig-kit", {PROBES: {"wig": "wig_exporter"}}, wig_exporter=_EXPORTER)
    with pytest.raises(
        PluginError,
        match=r"1\.2\): probekit_attach is missing; probekit_decode is missing; probekit_aggregate is missing$",
    ):
        discover().call(PROBES, "wig", "probekit_config", name="wig")


def test_a_function_that_is_not_marked_is_no_hook(install: Install) -> None:
    with pytest.raises(PluginError, match=r"probekit_export lacks @probekit\.hook$"):
        _export(_one(install, _EXPORTER.replace("@hook\ndef probekit_export", "def probekit_export")))


@pytest.mark.parametrize(
    ("group", "hook", "returned", "wrong"),
    [
        (PROBES, "probekit_config", "None", "None is not an attrs class"),
        (PROBES, "probekit_config", "3", "3 is not an attrs class"),
        (PROBES, "probekit_config", "type('C', (), {})", "is not an attrs class"),
        (PROBES, "probekit_config", "attrs.make_class('C', ['width'])", "C.width is not made by probekit.option()"),
        (PROBES, "probekit_attach", "{}", "{} is not an AttachPlan"),
        (PROBES, "probekit_attach", "AttachPlan(Path('/nowhere.c'), (), ())", "its source /nowhere.c does not exist"),
        (PROBES, "probekit_decode", "3", "3 is no function"),
        (PROBES, "probekit_aggregate", "3", "3 has no update, snapshot()"),
        (EXPORTERS, "probekit_export", "None", "None has no __enter__, __exit__, export()"),
    ],
)
def test_a_hook_that_returns_something_else_is_named(
    install: Install, group: str, hook: str, returned: str, wrong: str
) -> None:
    head, tail = {PROBES: _PROBE, EXPORTERS: _EXPORTER}[group].split(f"@hook\ndef {hook}")
    source = f"import attrs\n{head}@hook\ndef {hook}():\n    return {returned}\n\n@hook" + tail.partition("@hook")[2]
    install("wig-kit", {group: {"wig": "wig_it"}}, wig_it=source.removesuffix("@hook"))
    found = discover()
    arguments = dict.fromkeys(arguments_of(hook))
    with pytest.raises(
        PluginError, match=rf"wig \(wig_it, from wig-kit 1.2\): {hook} returned an invalid value: "
    ) as e:
        found.call(group, "wig", hook, **arguments)
    assert e.value.message.endswith(wrong)


def test_what_a_hook_raises_is_told_with_the_plugin_and_the_package(install: Install) -> None:
    source = _EXPORTER.replace("return Exporter(", "raise KeyError('wag') or (")
    with pytest.raises(PluginError, match=rf"{_OWNER}: probekit_export failed: KeyError: 'wag'$") as caught:
        _export(_one(install, source))
    assert caught.value.hint == "probekit --debug ... shows where"
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_aggregator_needs_two_hooks(install: Install) -> None:
    install(
        "wig-kit", {AGGREGATORS: {"wig": "wig_probe", "wag": "wig_exporter"}}, wig_probe=_PROBE, wig_exporter=_EXPORTER
    )
    found = discover()
    assert (
        found.call(
            AGGREGATORS, "wig", "probekit_aggregate", probe="latency", config=None, attached=(), began=0, machine=None
        ).__name__
        == "Aggregator"
    )
    with pytest.raises(PluginError, match=r"^aggregator wag \(wig_exporter, from .*\): probekit_aggregate is missing$"):
        found.config_type(AGGREGATORS, "wag")


def test_two_names_need_two_modules(install: Install) -> None:
    install("wig-kit", {EXPORTERS: {"wig": "wig_exporter", "wag": "wig_exporter"}}, wig_exporter=_EXPORTER)
    found = discover()
    _export(found, "wag")
    with pytest.raises(PluginError, match=f"{_OWNER}: its module is that of wag; each name needs a module of its own$"):
        _export(found)


_WRONG_ARGUMENT = _EXPORTER.replace("(exporter, config):", "(expotrer):")
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
    assert _export(found, "wig").name == "wig"


def test_two_packages_with_one_name_are_both_named_and_neither_is_imported(install: Install) -> None:
    install("wig-kit", {EXPORTERS: {"wig": "wig_one"}}, wig_one=_EXPORTER)
    install("wag-kit", {EXPORTERS: {"wig": "wig_two"}}, wig_two=_EXPORTER)
    found = discover()
    with pytest.raises(
        PluginError, match=r"exporter wig is installed twice: by wag-kit 1\.2 and by wig-kit 1\.2$"
    ) as caught:
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
    assert _export(discover()).name == "wig"


def test_a_probe_and_an_exporter_may_have_one_name(install: Install) -> None:
    install(
        "wig-kit", {PROBES: {"wig": "wig_probe"}, EXPORTERS: {"wig": "wig_exporter"}},
        wig_probe=_PROBE, wig_exporter=_EXPORTER,
    )  # fmt: skip
    found = discover()
    assert _export(found).name == "wig"
    assert found.call(PROBES, "wig", "probekit_config", name="wig").__name__ == "Wig"


def test_nothing_is_said_of_a_package_that_is_not_there() -> None:
    assert distribution.stranger() == ""


@pytest.mark.parametrize("source", ["from probekit import nothing_of_that_name", _UNKNOWN_HOOK])
def test_a_plugin_that_fails_beside_the_package_of_our_import_name_says_so(install: Install, source: str) -> None:
    install(distribution.STRANGER, {}, version="0.4.0")
    with pytest.raises(PluginError, match=_OWNER) as caught:
        _export(_one(install, source))
    assert "the package probekit 0.4.0 is installed (without a description): it is not this one" in caught.value.message
    assert caught.value.hint == ("pip uninstall probekit; pip install --force-reinstall --no-deps probekit-ebpf")


@pytest.mark.parametrize(
    "name",
    ["", "A", "1a", "a b", "a-b", "a_", "_a", "a__b", "class", "Ä", "a\n", "../a", "a.b", "a" * 61, "\x1b", "\udcff"],
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be a plugin's name$") as caught:
        write(PROBES, name, discover(), tmp_path)
    assert caught.value.message.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("group", "name"), [(PROBES, "ebpf"), (EXPORTERS, "latency"), (EXPORTERS, "ebpf")])
def test_the_package_of_a_new_plugin_takes_nobodys_place(tmp_path: Path, group: str, name: str) -> None:
    with pytest.raises(InputError, match=f"there is a package probekit-{name} already"):
        write(group, name, discover(), tmp_path)


def test_a_package_is_written_into_folders_of_any_name_or_says_why_not(tmp_path: Path) -> None:
    assert (write(PROBES, "wig_2", discover(), tmp_path / "\x1b\udcff") / "pyproject.toml").is_file()
    with pytest.raises(InputError, match="cannot be written: File exists") as caught:
        write(PROBES, "wig_2", discover(), tmp_path / "\x1b\udcff")
    assert caught.value.message.isprintable()


def test_a_list_of_plugins_is_safe_to_print(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("wig-kit", {EXPORTERS: {"wig\x1b[31m": "wig_\u202e"}}, version="1\x9b2")
    assert cli.invoke(["list"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert re.search(r"^exporter +wig\\u001b\[31m +wig_\\u202e +wig-kit 1\\u009b2$", out, re.MULTILINE)


def test_a_written_configuration_is_utf_8_on_any_terminal(
    install: Install, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _PROBE.replace("import AttachPlan, hook", "import AttachPlan, hook, option").replace(
        "class Config:\n    pass", 'class Config:\n    """É."""\n    a: str = option("µs", help="é")'
    )
    install("wig-kit", {PROBES: {"wig": "wig_probe"}}, wig_probe=source)
    with open(os.dup(1), "w", encoding="ascii", errors="replace") as terminal:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", terminal)
        assert cli.invoke(["config", "init", "wig"]) == 0
    assert tomli.loads(capfdbinary.readouterr().out.decode())["probe"] == {"wig": {"a": "µs"}}


_PUT_TOGETHER = """
import sys
from functools import partial
from probekit import plugins
from probekit.config import structure
from probekit.plugins import AGGREGATORS, EXPORTERS, PROBES
from probekit.run import compose

found = plugins.discover()
types = [partial(found.config_type, group) for group in (PROBES, AGGREGATORS, EXPORTERS)]
exports = [{"kind": kind} if kind == "stdout" else {"kind": kind, "path": f"{{probe}}.{kind}"} for kind in sys.argv[1:]]
settings = structure({"export": exports}, ("latency", "drops", "conntrack"), *types, "it")
compose._links(settings, found, compose.Told(*[print] * 4))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "rich"}))
"""


def test_a_run_is_put_together_without_numpy_which_takes_longer_than_attaching(tmp_path: Path) -> None:
    """It is imported by another thread meanwhile; an exporter that imported it would make every start wait."""
    exporters = [info.name for info in discover().describe() if (info.group, info.distribution) == (EXPORTERS, NAME)]
    command = [sys.executable, "-c", _PUT_TOGETHER, *exporters]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")
