"""The contract finds what is wrong: plugins with one fault each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from probekit.machine import kernel
from probekit.testing import assert_plugin_contract, exported, sample

_EXPORTER = '''
from attrs import frozen
from probekit import ExportError, hook, option
from probekit.attach import Tracepoint
from probekit.drain import PerCpuArray
from probekit.export import place, prepare

@frozen
class Config:
    """Sheets."""

    path: str = option("-", help="the file")

class Exporter:
    def __init__(self, config):
        self.path = config.path

    def __enter__(self):
        prepare(self.path)
        return self

    def __exit__(self, *error):
        pass

    def export(self, snapshot):
        for table in snapshot.figures.tables:
            print(table.name)

@hook
def probekit_config():
    return Config

@hook
def probekit_export(config):
    return Exporter(config)
'''
_FAILS_FOR_GOOD = """            from pathlib import Path
            self.failed = getattr(self, "failed", False) or not Path(self.path).parent.is_dir()
            if self.failed:
                raise ExportError("failed")
"""
_PROBE = '''
from pathlib import Path
from attrs import frozen
import numpy as np
from probekit import AttachPlan, Column, Columns, Figures, Observation, Table, hook, option
from probekit.attach import Tracepoint
from probekit.drain import PerCpuArray

@frozen
class Config:
    """Sheets."""

    path: str = option("-", help="the file")

CALLS = []

@hook
def probekit_config():
    return Config

@hook
def probekit_attach():
    points = (Tracepoint("sched_process_exit", "process_exit"),)
    return AttachPlan(Path(__file__), (Observation("exit", points),), (PerCpuArray("counters"),))

@hook
def probekit_decode():
    return lambda batch: Columns(batch.source, {})

class Aggregator:
    def update(self, columns):
        pass

    def snapshot(self):
        names = np.array(["a", "b"])
        return Figures({}, (Table("sheets", (Column("name", names, label=True),), key=names),))

@hook
def probekit_aggregate():
    return Aggregator()
'''

Check = Callable[[str, str], str]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Installs a module as `wig` and returns what the contract says of it; nothing is loaded into the kernel."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(kernel, "detect", lambda: attrs.evolve(kernel.KernelFacts(
        release="6.1.0", machine="x86_64", cpus=2, btf=None, capabilities=frozenset()
    )))  # fmt: skip

    def faults(kind: str, source: str, readme: str = "`path` is the file") -> str:
        information = tmp_path / "wig-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wig\nVersion: 1.0\n\n{readme}\n")
        (information / "entry_points.txt").write_text(f"[probekit.{kind}s]\nwig = wig_module\n")
        (tmp_path / "wig_module.py").write_text(source)
        monkeypatch.delitem(sys.modules, "wig_module", raising=False)
        try:
            assert_plugin_contract(kind, "wig")
        except AssertionError as error:
            return str(error).split("\nassert ")[0]
        except pytest.skip.Exception as skipped:
            return str(skipped)
        return ""

    return faults


def test_what_is_whole_passes(check: Check) -> None:
    assert check("exporter", _EXPORTER) == ""


def test_what_needs_the_kernel_is_said_to_be_unchecked(check: Check) -> None:
    assert check("probe", _PROBE).startswith("probe wig keeps what could be checked here; not checked: layouts and att")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('    """Sheets."""\n', "", "configuration: Config has no docstring"),
        ('help="the file"', 'help=""', "configuration: the option path has no help"),
        ("path: str", "pfad: str", "documentation: the option pfad is not in the README"),
        ('option("-", help', 'option(b"-", help', "configuration: the default of path cannot be written in TOML"),
        ("        prepare(self.path)\n", "", "export: that its folder is not there is not noticed before anything is"),
        ("prepare(self.path)", "place(self.path.removesuffix('/missing/file')[9999], '')", "export: IndexError"),
        ("prepare(self.path)", "open(self.path)", "export: FileNotFoundError"),
        ("print(table.name)", "int(table.columns[2].values[1])", "export: ValueError: cannot convert float NaN"),
        (
            "            print(table.name)",
            _FAILS_FOR_GOOD,
            "export: after a failure it cannot be asked again: ExportError",
        ),
        ("@hook\ndef probekit_export", "def probekit_export", "hooks: exporter wig"),
    ],
)
def test_a_fault_of_an_exporter_is_found(check: Check, old: str, new: str, fault: str) -> None:
    assert old in _EXPORTER
    source = _EXPORTER.replace(old, new)
    assert f"  {fault}" in check("exporter", source.replace("config.path", "config.pfad") if "pfad" in new else source)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("(Observation(", "(CALLS.append(1) or Observation(str(CALLS), points), Observation(", "plan: two calls"),
        ('"exit", points)', '"exit", points), Observation("exit", points)', "plan: two observations are named exit"),
        ('"exit", points)', '"exit", points, needed=False)', "plan: exit may be missing and does not say"),
        ('    points = (', '    CALLS.append(__import__("select").epoll())\n    points = (',
         "plan: probekit_attach opens files"),
        ('["a", "b"]', '["a", "a"]', "figures of nothing: keys of table sheets are not unique"),
        ("names, label=True)", "names[:1], label=True)", "figures of nothing: the columns of table sheets are of diff"),
        ("names, label=True)", "names)", "figures of nothing: column name of table sheets is neither a number nor"),
        ("key=names)", "key=names, headline=('size',))", "figures of nothing: the headline of table sheets names no"),
        ("Figures({},", 'Figures({"when": CALLS.append},', "figures of nothing: cannot be written as JSON"),
        ("        names = np", "        raise KeyError(7)\n        names = np", "run: probe wig"),
    ],
)  # fmt: skip
def test_a_fault_of_a_probe_is_found(check: Check, old: str, new: str, fault: str) -> None:
    assert old in _PROBE
    assert f"  {fault}" in check("probe", _PROBE.replace(old, new))


def test_a_name_that_nobody_has_is_told(check: Check) -> None:
    with pytest.raises(AssertionError, match=r"names: no package has an entry point for it in probekit\.probes"):
        assert_plugin_contract("probe", "nobodys")


def test_a_snapshot_is_sent_as_a_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    exported("json", sample(final=False))
    assert capsys.readouterr().out == ""
    exported("json", sample())
    assert capsys.readouterr().out.startswith('{\n  "schema"')
