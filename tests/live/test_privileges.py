"""A user with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN alone: what is there is as root has it, what is not is said."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import PROBEKIT

NOBODY = 65534
CAPABILITIES = ("bpf", "perfmon", "net_admin")
NAMESPACE = "probekit-few"
TOML = """
[probe.drops]
layers = ["device", "tc", "netfilter", "socket"]
devices = ["lo"]
"""
NOT_PERMITTED = "not permitted: needs CAP_"

pytestmark = pytest.mark.timeout(300)


def few(*arguments: str, cache: Path, inside: str = "") -> subprocess.CompletedProcess[str]:
    """A command of a user that has three capabilities and nothing else."""
    granted = [f"+{name}" for name in CAPABILITIES]
    reaches = subprocess.run(["setpriv", "--reuid", str(NOBODY), "--clear-groups", "test", "-x", PROBEKIT])
    if reaches.returncode:  # the checkout is where only root may look
        granted.append("+dac_read_search")
    sets = ",".join(("-all", *granted))
    command = [
        *(["ip", "netns", "exec", inside] if inside else []),
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
        f"--inh-caps={sets}", f"--ambient-caps={sets}", f"--bounding-set={sets}", PROBEKIT, *arguments,
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(cache), "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nobody's, below folders that nobody else can write."""
    folder = Path("/var/tmp") / f"probekit-test-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _removed(cache: Path) -> Any:
    yield
    subprocess.run(["rm", "-r", str(cache)], check=True)


@pytest.fixture(scope="module")
def documents(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The documents of all three probes, run with few privileges in a network namespace of the test's own."""
    toml = cache / "run.toml"
    toml.write_text(TOML)
    toml.chmod(0o644)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        arguments = ("run", "drops", "conntrack", "latency", "--config", str(toml), "--duration", "1s")
        done = few(*arguments, "--export", f"json:{cache}/{{probe}}.json", cache=cache, inside=NAMESPACE)
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in cache.glob("*.json")}


def test_objects_are_those_that_root_compiles(cache: Path, documents: dict[str, Any], tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(TOML)
    probes = ["drops", "conntrack", "latency"]
    command = [
        *("ip", "netns", "exec", NAMESPACE, PROBEKIT),
        *("compile", *probes, "--config", str(toml), "--output", str(tmp_path / "roots")),
    ]
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(command, check=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)
    roots = {path.name: path.read_bytes() for path in (tmp_path / "cache" / "probekit").glob("*.object")}
    assert len(roots) == len(probes)
    assert {path.name: path.read_bytes() for path in (cache / "probekit").glob("*.object")} == roots


def test_what_is_observed_is_there_or_said_to_be_missing_with_the_capability(documents: dict[str, Any]) -> None:
    assert documents.keys() == {"drops", "conntrack", "latency"}
    print(f"\n{'probe':10} {'observation':22} attached")
    for probe, document in sorted(documents.items()):
        for observation, how in document["attached"].items():
            print(f"{probe:10} {observation:22} {how}")
            assert how != "not on this kernel", (probe, observation)
    attached = documents["drops"]["attached"]
    for layer in ("received", "tc ingress lo", "tc egress lo", "netfilter enter", "netfilter leave"):
        assert NOT_PERMITTED not in attached[layer]
    assert attached["socket"] in ("cgroup ingress /", "not permitted: needs CAP_SYS_ADMIN")


def test_every_column_is_there(documents: dict[str, Any]) -> None:
    """With few privileges a table has the columns that it has with all."""
    print(f"\n{'probe':10} {'table':14} columns")
    for probe, document in sorted(documents.items()):
        for name, columns in document["described"].items():
            print(f"{probe:10} {name:14} {', '.join(columns)}")
            assert {tuple(row) for row in document[name].values()} <= {tuple(columns)}


def test_check_says_what_each_missing_capability_costs(cache: Path) -> None:
    done = few("check", cache=cache)
    print(done.stdout)
    for name in ("CAP_SYSLOG", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"):
        assert f"without {name}: no" in done.stdout
    assert "in other network namespaces: not permitted: needs CAP_SYS_ADMIN" in done.stdout
    assert "not on this kernel" not in done.stdout
