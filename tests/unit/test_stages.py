"""Who may import whom: the data goes one way, and neither the core nor exporters know a probe."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import probekit
from probekit.plugins import EXPORTERS, discover
from probekit.plugins.distribution import NAME

_ROOT = Path(probekit.__file__).parent
_STAGES = ("config", "compile", "load", "attach", "drain", "decode", "aggregate", "export")
_ROOMS = ("cli", "machine", "model", "plugins", "run", "testing")
"""What is no stage: the command line, the machine, the values, the plugins, a run, the author's kit."""
_SHARED = {"", "model", "errors", "machine", "words"}
_OPTIONS = "probekit.config.options"
"""How plugins declare their options: of the configuration, and all that others need of it."""
_ABOVE = {"cli", "run", "testing"}
"""Rooms that may know several stages: what puts a run together, and who asks for one."""
_MODULES = sorted(path for path in _ROOT.rglob("*.py") if "templates" not in path.relative_to(_ROOT).parts)
_PROBE_FOLDERS = sorted(path.parent for path in _ROOT.parent.glob("probekit_*/__init__.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(_ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(source: str, package: str) -> Iterator[str]:
    """The full name of everything that is imported anywhere in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _imports_of(path: Path) -> set[str]:
    name = _name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return set(_imports(path.read_text(), package))


def _parts(path: Path) -> set[str]:
    """Rooms and modules directly below probekit that a file imports; "" for what probekit itself offers."""
    parts = set()
    for name in _imports_of(path):
        head, *rest = name.split(".")
        if head == "probekit" and not name.startswith(_OPTIONS):
            part = rest[0] if rest else ""
            known = (_ROOT / part).is_dir() or (_ROOT / f"{part}.py").is_file()
            parts.add(part if known else "")
    return parts


def _part(path: Path) -> str:
    part = path.relative_to(_ROOT).with_suffix("").parts[0]
    return "" if part == "__init__" else part


def test_the_guard_sees_every_spelling_of_an_import() -> None:
    source = """
import probekit.load
from probekit import drain as d
from probekit.decode import fields
from .. import compile
from ..config import read
from . import files
def late():
    from ..aggregate.histogram import Histogram
"""
    assert set(_imports(source, "probekit.export")) == {
        "probekit.load",
        "probekit.drain",
        "probekit.decode.fields",
        "probekit.compile",
        "probekit.config.read",
        "probekit.export.files",
        "probekit.aggregate.histogram.Histogram",
    }


@pytest.mark.parametrize("stage", _STAGES)
def test_a_stage_imports_shared_values_and_itself_and_no_other_stage(stage: str) -> None:
    modules = [path for path in _MODULES if _part(path) == stage]
    assert modules
    found = {_name(path): _parts(path) - _SHARED - {stage} for path in modules}
    assert {name: parts for name, parts in found.items() if parts} == {}


def test_every_folder_of_the_core_is_a_stage_or_a_room() -> None:
    assert {path.parent.name for path in _ROOT.glob("*/__init__.py")} == {*_STAGES, *_ROOMS}


@pytest.mark.parametrize("shared", sorted(_SHARED))
def test_what_every_stage_may_import_imports_no_stage(shared: str) -> None:
    modules = [path for path in _MODULES if _part(path) == shared]
    assert modules
    assert [_name(path) for path in modules if _parts(path) & set(_STAGES)] == []


def test_only_what_is_above_the_stages_imports_several_of_them() -> None:
    several = {_part(path) for path in _MODULES if len(_parts(path) & {*_STAGES} - {_part(path)}) > 1}
    assert several == _ABOVE


def _run(source: str) -> str:
    """A source without what is there for checkers of types only: it is never imported."""
    tree = ast.parse(source)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return ast.unparse(tree)


def _modules_imported(path: Path) -> set[str]:
    """Modules of the core that a file imports when it runs, also within functions."""
    names = {_name(other) for other in _MODULES}
    package = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]
    found = set()
    for name in _imports(_run(path.read_text()), package):
        while name and name not in names:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {"", _name(path)}


def _cycle(imports: dict[str, set[str]]) -> list[str]:
    """A circle of imports; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(imports[name]):
            if circle := walk(other, [*way, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(imports) if (circle := walk(name, []))), [])


def test_a_cycle_is_seen() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_cycle_of_imports() -> None:
    """Not of a package's face with what is behind it: `from ..x import y` of another room is an import of that room."""
    assert _cycle({_name(path): _modules_imported(path) for path in _MODULES}) == []


def test_the_core_imports_no_probe() -> None:
    found = {name for path in _MODULES for name in _imports_of(path) if name.startswith("probekit_")}
    assert found == set()


def test_the_core_names_no_probe_in_its_code() -> None:
    probes = {name for folder in _PROBE_FOLDERS for name in (folder.name, folder.name.removeprefix("probekit_"))}
    assert probes
    named = {
        (_name(path), node.value)
        for path in _MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in probes
    }
    assert named == set()


def _public() -> set[str]:
    """Names that plugins may import: those that docs/hooks.md lists."""
    generate = importlib.import_module("generate")
    return {f"{module.__name__}.{name}" for module in generate.public_modules() for name in module.__all__}


def test_built_in_plugins_use_public_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stranger may not rely on, the built-in probes do not, either."""
    monkeypatch.syspath_prepend(str(_ROOT.parent / "docs"))  # it is no package
    public = _public()
    used = {
        (path.relative_to(_ROOT.parent).as_posix(), name)
        for folder in _PROBE_FOLDERS
        for path in sorted(folder.rglob("*.py"))
        for name in _imports_of(path)
        if name.partition(".")[0] == "probekit"
    }
    assert used
    assert {(path, name) for path, name in used if name not in public} == set()


def test_no_probe_imports_an_exporter_or_another_probe() -> None:
    assert _PROBE_FOLDERS
    for folder in _PROBE_FOLDERS:
        modules = sorted(folder.rglob("*.py"))
        assert modules
        for path in modules:
            names = _imports_of(path)
            assert not {name for name in names if name.startswith("probekit.export")}, path
            heads = {name.partition(".")[0] for name in names}
            assert {head for head in heads if head.startswith("probekit_")} <= {folder.name}, path


def test_the_built_in_exporters_are_modules_of_the_export_stage() -> None:
    exporters = {info.module for info in discover().describe() if (info.group, info.distribution) == (EXPORTERS, NAME)}
    assert exporters
    assert {module.rpartition(".")[0] for module in exporters} == {"probekit.export"}
