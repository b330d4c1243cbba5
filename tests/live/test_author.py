"""The path of a plugin's author: what `probekit new` writes, and docs/write-a-probe.md word for word."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.cli import invoke

from .packages import Environment, Environments, make

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "write-a-probe.md").read_text()
MOST_LINES = 80
MYPY = {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}  # NumPy takes it long

pytestmark = pytest.mark.timeout(300)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def fresh(environments: Environments, tmp_path_factory: pytest.TempPathFactory) -> tuple[Environment, Path]:
    """An environment with a new probe and a new exporter, and the folder that they were written to."""
    folder = tmp_path_factory.mktemp("new")
    environment = make(folder / "environment")
    for kind, name in (("probe", "lives"), ("exporter", "marked_down")):
        done = environment.probekit("new", kind, name, cwd=folder)
        assert done.returncode == 0, done.stderr
    environment.install(folder / "probekit-lives", folder / "probekit-marked-down")
    return environment, folder


@pytest.mark.parametrize("package", ["probekit-lives", "probekit-marked-down"])
def test_a_new_package_passes_its_own_tests_and_linters(
    fresh: tuple[Environment, Path], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, folder = fresh
    monkeypatch.setenv(*next(iter(MYPY.items())))
    for command in (["pytest"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        done = environment.module(*command, cwd=folder / package)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "skipped" not in done.stdout


def test_a_new_probe_comes_out_of_a_new_exporter(fresh: tuple[Environment, Path], tmp_path: Path) -> None:
    environment, _ = fresh
    arguments = ("run", "lives", "--duration", "2s", "--export", "marked_down:out.md")
    load = subprocess.Popen(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.4; done"])
    done = environment.probekit(*arguments, cwd=tmp_path)
    load.wait(10)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| sleep \| [1-9]\d* \| 4\d\d\.", (tmp_path / "out.md").read_text(), re.MULTILINE)


def test_after_a_change_of_the_c_source_the_recording_is_made_again_by_one_command(
    fresh: tuple[Environment, Path], tmp_path: Path
) -> None:
    environment, _ = fresh
    assert environment.probekit("new", "probe", "changed", cwd=tmp_path).returncode == 0
    package = tmp_path / "probekit-changed"
    source, aggregate, test = (
        package / path
        for path in ("probekit_changed/changed.bpf.c", "probekit_changed/aggregate.py", "tests/test_changed.py")
    )
    source.write_text(
        source.read_text()
        .replace("  u64 age; /* ns, sum */", "  u64 age; /* ns, sum */\n  u64 exits;")
        .replace("__sync_fetch_and_add(&command->age, age);", "command->exits += 1;", 1)
    )
    aggregate.write_text(aggregate.read_text().replace('self._commands["age"] / np', 'self._commands["exits"] / np', 1))
    test.write_text(
        re.sub(r"\n\ndef test_(?!figures_of_a_rec)\w+\(.*?(?=\n\n\n|\Z)", "\n", test.read_text(), flags=re.DOTALL)
    )
    environment.install(package)
    done = environment.module("pytest", "-q", cwd=package)
    assert done.returncode == 1
    assert "`pytest --record` makes the recording again" in done.stdout
    done = environment.module("pytest", "-q", "--record", cwd=package)
    assert done.returncode == 0, done.stdout
    assert environment.module("pytest", "-q", cwd=package).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["probe", "latency"], "there is a probe of that name already: latency"),
        (["exporter", "json"], "there is an exporter of that name already"),
        (["probe", "Dns"], "'Dns' cannot be a plugin's name"),
        (["probe", "my-probe"], "'my-probe' cannot be a plugin's name"),
        (["probe", "class"], "'class' cannot be a plugin's name"),
        (["probe", "there"], "probekit-there: cannot be written: File exists"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probekit-there").mkdir()
    assert invoke(["new", *arguments]) == 2
    assert message.split(":")[0] in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["probekit-there"]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The page, followed by a script in an empty folder; the folder and what the commands printed."""
    folder = tmp_path_factory.mktemp("page")
    script = "set -euo pipefail\n" + "\n".join(blocks("sh"))
    ours = next(path for path in site.getsitepackages() if path.startswith(sys.prefix))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VIRTUAL_ENV")}
    environment = {
        **inherited,
        "PROBEKIT": str(ROOT),
        "PYTHONPATH": ours,
        **MYPY,
    }  # so that nothing large is downloaded
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_the_page_leads_to_a_probe_that_runs(followed: tuple[Path, str]) -> None:
    folder, printed = followed
    document = json.loads((folder / "probekit-lifetimes" / "lifetimes.json").read_text())
    assert document["commands"]["sleep"]["processes"] >= 3
    assert document["attached"] == {"exit": "tracepoint sched_process_exit"}
    assert "tracepoint sched_process_exit: works" in printed
    assert "probekit_lifetimes-0.1.0-py3-none-any.whl" in printed
    assert printed.count(" 5 passed") + printed.count("5 passed in") >= 3


def test_the_page_leads_to_a_stream_of_events(followed: tuple[Path, str]) -> None:
    lines = (followed[0] / "probekit-lifetimes" / "exits.jsonl").read_text().splitlines()
    events = [line for line in map(json.loads, lines) if line["record"] == "event"]
    assert sum(event["command"] == "sleep" and event["age_ms"] >= 200 for event in events) >= 3


def test_the_probe_that_is_written_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["new", "probe", "lifetimes"]) == 0
    sources = list((tmp_path / "probekit-lifetimes" / "probekit_lifetimes").glob("*.py"))
    assert len(sources) == 2
    assert sum(len(source.read_text().splitlines()) for source in sources) < MOST_LINES


def test_the_page_shows_what_is_printed(followed: tuple[Path, str]) -> None:
    lines = [line.strip() for block in blocks("text") for line in block.splitlines()]
    assert len(lines) == 4
    assert [line for line in lines if line not in followed[1]] == []


def test_the_page_shows_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["new", "probe", "lifetimes"]) == 0
    package = tmp_path / "probekit-lifetimes" / "probekit_lifetimes"
    written = "\n".join(path.read_text() for path in [*package.glob("*.py"), *package.glob("*.c")])
    shown = blocks("c") + blocks("python")
    assert len(shown) == 4
    assert [block for block in shown if block not in written] == []
