"""Packages that the core knows nothing of, from built wheels, each in an environment of its own."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import threading
from pathlib import Path

import pytest

import probekit

from ..bench import plugins
from .conftest import PROBEKIT
from .packages import THIRD_PARTY, Environments, make

PACKAGES = {"dns": "probe", "opens": "probe", "ports": "aggregator", "sqlite": "exporter"}
RUN = """
[probe.dns]
port = {dns}
[[aggregate]]
probe = "latency"
kind = "ports"
most = 1000
[[export]]
kind = "json"
path = "{{probe}}.json"
[[export]]
kind = "csv"
path = "{{probe}}.csv"
[[export]]
kind = "csv"
path = "{{probe}}.ports.csv"
table = "{table}"
[[export]]
kind = "jsonl"
path = "{{probe}}.jsonl"
[[export]]
kind = "sqlite"
path = "all.db"
[[export]]
kind = "stdout"
rows = 1000
wide = true
"""


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_listed_with_its_version_and_passes_its_own_tests(
    environments: Environments, tmp_path: Path, name: str
) -> None:
    environment = environments.of(name)
    listed = environment.probekit("list")
    assert re.search(
        rf"^{PACKAGES[name]} +{name} +probekit_{name} +probekit-{name} 0\.1\.0$", listed.stdout, re.MULTILINE
    )
    assert not any(f"probekit-{other}" in listed.stdout for other in PACKAGES if other != name)
    shutil.copytree(THIRD_PARTY / f"probekit-{name}" / "tests", tmp_path / "tests")  # without the sources beside them
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    done = environment.module("pytest", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout, done.stdout


def test_the_core_has_no_line_for_them() -> None:
    """Not even a string."""
    sources = [path for path in Path(probekit.__file__).parent.rglob("*.py") if "templates" not in path.parts]
    named = {
        (path.name, node.value)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in {*PACKAGES, *(f"probekit-{name}" for name in PACKAGES)}
    }
    assert named == set()


def test_all_of_them_come_through_every_exporter(environments: Environments, tmp_path: Path) -> None:
    environment = environments.of(*PACKAGES)
    kinds = {
        line.split()[1] for line in environment.probekit("list").stdout.splitlines() if line.startswith("exporter")
    }
    assert kinds == set(re.findall(r'kind = "(\w+)"', RUN)) - {"ports"}
    server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with server, client, socket.create_server(("127.0.0.1", 0)) as listener:
        server.bind(("127.0.0.1", 0))
        port, dns = listener.getsockname()[1], server.getsockname()[1]
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        (tmp_path / "run.toml").write_text(RUN.format(dns=dns, table="servers"))
        out = _run(environment.python, tmp_path, ("dns",), lambda: _ask(client, dns, 5))
        document = json.loads((tmp_path / "dns.json").read_text())
        assert (document["total_events"], document["servers"]["127.0.0.1"]["answers"]) == (5, 5)
        assert re.search(r"^127\.0\.0\.1 +5 +0 ", out, re.MULTILINE)
        assert _csv(tmp_path / "dns.csv") == _csv(tmp_path / "dns.ports.csv")
        assert _csv(tmp_path / "dns.csv")[0]["answers"] == "5"
        (tmp_path / "run.toml").write_text(RUN.format(dns=dns, table="ports.ports"))
        out = _run(environment.python, tmp_path, ("latency",), lambda: _talk(port, 4))
    document = json.loads((tmp_path / "latency.json").read_text())
    assert document["ports.ports"][f"{port} client"]["events"] == 4
    assert re.search(rf"^{port} +client +4 ", out, re.MULTILINE)
    rows = {(row["port"], row["side"]): row["events"] for row in _csv(tmp_path / "latency.ports.csv")}
    assert rows[str(port), "client"] == rows[str(port), "server"] == "4"
    last = json.loads((tmp_path / "latency.jsonl").read_text().splitlines()[-1])
    assert last["ports.ports"][f"{port} server"]["events"] == 4
    with sqlite3.connect(tmp_path / "all.db") as database:
        ask = "SELECT value FROM figures WHERE name = ? AND key = ? AND figure = ? AND final"
        assert database.execute(ask, ("ports.ports", f"{port} client", "events")).fetchall() == [(4,)]
        assert database.execute(ask, ("servers", "127.0.0.1", "answers")).fetchall() == [(5,)]


def _run(python: str, folder: Path, probes: tuple[str, ...], traffic: object) -> str:
    """Runs probes while there is traffic; what the run printed."""
    assert callable(traffic)
    command = [python, "-m", "probekit", "run", *probes, "--config", "run.toml"]
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        first = running.stderr.readline()
        assert first.startswith("measuring"), first + running.stderr.read()
        traffic()
        running.terminate()
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, err
    return out


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _ask(client: socket.socket, port: int, times: int) -> None:
    client.settimeout(10)
    for number in range(times):
        client.sendto(struct.pack(">6H", number, 0x0100, 1, 0, 0, 0), ("127.0.0.1", port))
        client.recv(512)


def _answer(server: socket.socket) -> None:
    while True:
        try:
            query, peer = server.recvfrom(512)
        except OSError:
            return
        server.sendto(query[:2] + b"\x81\x80" + query[4:], peer)


def _talk(port: int, times: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(times):
            client.sendall(b"?")
            client.recv(1)


def _echo(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        while peer.recv(1):
            peer.sendall(b"!")


def test_the_package_that_has_our_import_name_is_named_with_what_to_do(tmp_path: Path) -> None:
    """On PyPI that is somebody else's: installed after ours, it lies over it."""
    theirs = tmp_path / "theirs"
    (theirs / "probekit").mkdir(parents=True)
    (theirs / "probekit" / "__init__.py").write_text("__version__ = '0.4.0'\n")
    (theirs / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "probekit"\nversion = "0.4.0"\ndescription = "Probes of something else"\n'
    )
    environment = make(tmp_path / "environment")
    environment.install(Path(probekit.__file__).parents[1])
    environment.install(theirs)
    said = "the package probekit 0.4.0 is installed (Probes of something else): it is not this one"
    for command in (["check"], ["run", "latency", "--duration", "1s"]):
        done = environment.probekit(*command, cwd=tmp_path)
        assert done.returncode in (2, 3), done.stderr
        assert said in done.stdout + done.stderr
        assert "pip uninstall probekit; pip install --force-reinstall --no-deps probekit-ebpf" in (
            done.stdout + done.stderr
        )
        assert "Traceback" not in done.stderr
        assert ("  no probekit: " in done.stdout) == (command == ["check"])


def test_plugins_that_are_not_used_are_not_imported(tmp_path: Path) -> None:
    plugins.install(tmp_path)  # each of their modules ends the process
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    listed = subprocess.run([PROBEKIT, "list"], env=environment, capture_output=True, text=True)
    assert listed.stdout.count("idle_") == 2 * 3 * plugins.PLUGINS + 3 * plugins.PLUGINS
    command = [PROBEKIT, "run", "latency", "--duration", "100ms", "--export", "json:/dev/null"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = subprocess.run([PROBEKIT, "run", "idle_3"], env=environment, capture_output=True, text=True)
    assert "this plugin is not used" in used.stderr
