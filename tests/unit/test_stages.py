"""Who may import whom: the data goes one way, and neither the core nor exporters know a probe."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import probekit
from probekit.distribution import NAME
from probekit.plugins import EXPORTERS, discover

_ROOT = Path(probekit.__file__).parent
_STAGES = ("config", "compile", "load", "drain", "decode", "aggregate", "export")
_SHARED = {
    "",
    "model",
    "errors",
    "options",
    "kernel",
    "paths",
    "bpf",
    "btf",
    "namespaces",
    "outside",
    "map_types",
    "trust",
    "privileges",
    "words",
    "streams",
}
_ALL_STAGES = {
    "pipeline.py",
    "running.py",
    "measure.py",
    "cli.py",
    "check.py",
    "testing.py",
    "contract.py",
    "tables.py",
}
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
    """Modules directly below probekit that a file imports; "" for what probekit itself offers."""
    parts = set()
    for name in _imports_of(path):
        head, *rest = name.split(".")
        if head == "probekit":
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


def test_every_folder_of_the_core_is_a_stage() -> None:
    assert {path.parent.name for path in _ROOT.glob("*/__init__.py")} <= set(_STAGES)


@pytest.mark.parametrize("shared", sorted(_SHARED))
def test_what_every_stage_may_import_imports_no_stage(shared: str) -> None:
    modules = [path for path in _MODULES if _part(path) == shared]
    assert modules
    assert [_name(path) for path in modules if _parts(path) & set(_STAGES)] == []


def test_only_the_pipeline_and_the_commands_import_several_stages() -> None:
    several = {str(path.relative_to(_ROOT)) for path in _MODULES if len(_parts(path) & {*_STAGES} - {_part(path)}) > 1}
    assert several <= _ALL_STAGES
    assert "pipeline.py" in several


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
