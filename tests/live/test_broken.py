"""A package that is broken in every way: each fault has one message that names plugin and package, and others go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .packages import Environment, Environments

OWNER = r"\(probekit_broken\.[\w:]+, from probekit-broken 0\.1\.0\)"
RAISED = "RuntimeError: broken on purpose"
DOWN = 2
EXPORT = 4

PROBES = {
    "dns": "probe dns is installed twice: by probekit-broken 0.1.0 and by probekit-dns 0.1.0",
    "import_error": "cannot be imported: ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
    "no_module": "cannot be imported: ModuleNotFoundError: No module named 'probekit_broken.nowhere'",
    "unknown_hook": "there is no hook probekit_atach, did you mean probekit_attach?",
    "unmarked_hook": "probekit_attach lacks @probekit.hook",
    "missing_hook": "probekit_decode is missing",
    "wrong_argument": "probekit_attach gets no argument confg, did you mean config?",
    "bad_config": "probekit_config returned an invalid value: _Plain.width is not made by probekit.option()",
    "no_source": "probekit_attach returned an invalid value: its source {folder}/nowhere.bpf.c does not exist",
    "in_config": f"probekit_config failed: {RAISED}",
    "in_attach": f"probekit_attach failed: {RAISED}",
    "in_decode": f"probekit_decode failed: {RAISED}",
    "in_aggregate": f"probekit_aggregate failed: {RAISED}",
    "in_decoder": f"decoding counters failed: {RAISED}",
    "in_update": f"update with counters failed: {RAISED}",
    "in_snapshot": f"snapshot failed: {RAISED}",
}
ADDED = {
    "added_in_aggregate": f"probekit_aggregate failed: {RAISED}",
    "added_in_update": f"update with SOURCE failed: {RAISED}",
    "added_in_snapshot": f"snapshot failed: {RAISED}",
    "added_writes": "update with SOURCE failed: ValueError: assignment destination is read-only",
}
EXPORTERS = {
    "out_in_export_hook": f"probekit_export failed: {RAISED}",
    "out_in_enter": f"__enter__ failed: {RAISED}",
    "out_in_export": f"export failed: {RAISED}",
    "out_in_exit": f"__exit__ failed: {RAISED}",
}
SETUP = {"added_in_aggregate", "out_in_export_hook"}  # before the measurement: there is none


@pytest.fixture(scope="module")
def environment(environments: Environments) -> Environment:
    return environments.of("broken", "dns")


def check_message(stderr: str, kind: str, name: str, expected: str, environment: Environment) -> None:
    """One error in the output, which names the plugin, its module and its package."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    (folder,) = environment.folder.glob("lib/python3*/site-packages/probekit_broken")
    # on a machine that others use, one of their connections may have closed before the table is read
    wanted = re.escape(expected.format(folder=folder)).replace("SOURCE", "(connections|closed)")
    owner = "" if "installed twice" in expected else rf"{kind} {name} {OWNER}:? "
    assert re.fullmatch(rf"error: {owner}{wanted}", line), line
    assert "Traceback" not in stderr
    print(f"{name:20} {line}")


@pytest.mark.parametrize("name", PROBES)
def test_a_broken_probe_has_one_message(environment: Environment, name: str) -> None:
    done = environment.probekit("run", name, "--duration", "100ms", "--export", "json:/dev/null")
    assert done.returncode == DOWN, done.stderr
    check_message(done.stderr, "probe", name, PROBES[name], environment)


def test_a_plan_that_does_not_fit_its_source_says_so(environment: Environment) -> None:
    whole = environment.probekit("run", "in_update", "--duration", "100ms")  # of the same source: its object is kept
    assert "measuring" in whole.stderr
    done = environment.probekit("run", "wrong_source", "--duration", "100ms")
    assert done.returncode == 3
    assert re.search(r"exits\.bpf\.c has no map countres, which the plan drains \(available: counters\)", done.stderr)


@pytest.mark.parametrize("name", ADDED)
def test_a_broken_aggregator_leaves_the_probe_alone(environment: Environment, tmp_path: Path, name: str) -> None:
    (tmp_path / "run.toml").write_text(f'[[aggregate]]\nkind = "{name}"\nprobe = "latency"\n')
    arguments = ("run", "latency", "--config", "run.toml", "--duration", "100ms", "--export", "json:out.json")
    done = environment.probekit(*arguments, cwd=tmp_path)
    assert done.returncode == DOWN, done.stderr
    check_message(done.stderr, "aggregator", name, ADDED[name], environment)
    assert (tmp_path / "out.json").exists() == (name not in SETUP)
    if name not in SETUP:
        assert "connections" in json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_broken_exporter_leaves_the_others_whole(environment: Environment, tmp_path: Path, name: str) -> None:
    arguments = ("run", "latency", "--duration", "100ms", "--export", name, "--export", "json:out.json")
    done = environment.probekit(*arguments, cwd=tmp_path)
    assert done.returncode == (DOWN if name in SETUP else EXPORT), done.stderr
    check_message(done.stderr, "exporter", name, EXPORTERS[name], environment)
    assert (tmp_path / "out.json").exists() == (name not in SETUP)


def test_a_broken_probe_leaves_another_one_running(environment: Environment, tmp_path: Path) -> None:
    arguments = ("run", "in_update", "latency", "--duration", "100ms", "--export", "json:{probe}.json")
    done = environment.probekit(*arguments, cwd=tmp_path)
    assert done.returncode == DOWN
    check_message(done.stderr, "probe", "in_update", PROBES["in_update"], environment)
    whole, broken = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("latency", "in_update"))
    assert "connections" in whole
    assert broken["lost"]["batches_not_counted"] == 1  # what it could not take is missing in its figures, and said


def test_a_probe_that_fails_in_a_snapshot_loses_that_snapshot_only(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[run]\ninterval = "100ms"\n')
    arguments = (
        "run",
        "in_second_snapshot",
        "--config",
        "run.toml",
        "--duration",
        "350ms",
        "--export",
        "json:out.json",
    )
    done = environment.probekit(*arguments, cwd=tmp_path)
    assert done.returncode == DOWN
    check_message(done.stderr, "probe", "in_second_snapshot", PROBES["in_snapshot"], environment)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["total_events"] > 2  # snapshots that were made: it went on after the one that failed
    assert document["lost"]["snapshots_failed"] == 1


def test_what_is_broken_and_not_used_does_no_harm(environment: Environment) -> None:
    listed = environment.probekit("list")
    assert listed.returncode == 0
    assert listed.stdout.count("probekit-broken 0.1.0") == 26
    assert len(re.findall(r"^probe +dns ", listed.stdout, re.MULTILINE)) == 2
    done = environment.probekit("run", "latency", "--duration", "100ms", "--export", "json:/dev/null")
    assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr


def test_check_goes_on_after_a_broken_plugin(environment: Environment) -> None:
    done = environment.probekit("check")
    assert done.returncode == 3
    for name in ("import_error", "unknown_hook", "in_attach"):
        assert re.search(rf"^{name}\n  no probe {name} {OWNER}", done.stdout, re.MULTILINE), done.stdout
    assert "  ok exporter json (probekit.export.json, from probekit" in done.stdout
    assert "tracepoint tcp_rcv_space_adjust: works" in done.stdout
