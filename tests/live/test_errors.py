"""Every listed error, as a new user would meet it: one message, no traceback, the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PROBEKIT

# Nobody, who may read everything all the same: the checkout may be where only root may look.
READ_ONLY = "-all,+dac_read_search"
NOBODY = ["setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps={READ_ONLY}", f"--ambient-caps={READ_ONLY}"]


def probekit(*arguments: str | bytes, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*(prefix or []), PROBEKIT, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[probe.latency]\nsmaple = 0.5", "probe.latency.smaple: unknown key, did you mean sample?"),
        ("[probe.latency]\nsample = 'half'", 'probe.latency.sample = "half": has to be a number'),
        ("[probe.latency]\nsample = 1.5", "probe.latency.sample = 1.5: has to be above 0 and at most 1"),
        (
            "[probe.latency]\nattach = 'kprobes'",
            "has to be one of auto, fentry, kprobe, tracepoint; did you mean kprobe?",
        ),
        ("[run]\nduration = 60", 'run.duration = 60: has to be a duration with its unit, such as "60s"'),
        ("[probe.latency\nsample = 1", "not valid TOML: "),
        ("[probe.latecny]\nsample = 1", "probe.latecny: unknown probe 'latecny', did you mean latency?"),
        ("[[export]]\nkind = 'jsno'", "export[0].kind: unknown exporter 'jsno', did you mean json?"),
        ("[runn]", "runn: unknown key, did you mean run?"),
        ("run = 1", "run = 1: has to be a table"),
        ("export = 1", "export = 1: has to be a list of tables, each headed [[export]]"),
        ("export = {}", "export = {}: has to be a list of tables, each headed [[export]]"),
        ("[probe.latency]\nsample = 2020-01-01", "probe.latency.sample = 2020-01-01: has to be a number"),
        (f"[probe.latency]\nsample = 0x{'f' * 3600}", "probe.latency.sample = 0xfff"),
    ],
)
def test_a_bad_configuration_is_named_by_path_value_and_rule(tmp_path: Path, toml: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(toml)
    more = ["--interval", "1s", "--export", "json"]
    for command in (["run", "latency", "--config", str(file), *more], ["config", "validate", str(file)]):
        done = probekit(*command)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {file}: ")
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "latency", "--config", "nowhere.toml"], "nowhere.toml: there is no such file"),
        (["run", "latecny"], "unknown probe 'latecny', did you mean latency?"),
        (["run", "latency", "--export", "xml"], "unknown exporter 'xml'"),
        (["run", "latency", "--export", "json:"], "has to be KIND or KIND:PATH"),
        (["run", "latency", "--duration", "soon"], 'run.duration = "soon": has to be a duration'),
        (["run", "latency", "--set", "probe.latency.sample"], "has to be PATH=VALUE"),
        (["run", "latency", "--set", "probe.latency.sample=0"], "probe.latency.sample = 0: has to be above 0"),
        (["run"], "Missing argument"),
        (
            ["run", "drops", "--set", "probe.drops.mode=event"],
            'probe.drops.mode = "event": has to be one of aggregate, ev',
        ),
        (["run", "drops", "--set", "probe.drops.layers=[tc]"], "strings in it stand in quotes"),
        (
            ["run", "latency", "--set", b"probe.latency.mode=\xff\x1b"],
            'probe.latency.mode = "\\udcff\\u001b": has to be',
        ),
        (["run", "latency", "--set", b"probe.latency.\xff=1"], "has to be PATH=VALUE"),
        (["run", "latency", "--config", b"\xff\x1b"], "\\udcff\\u001b: there is no such file"),
        (["run", "latency", "--config", "/"], "/: cannot be read: Is a directory"),
        (["run", "latency", "--export", "json:x", "--export", "csv:./x"], "export[0] writes there already"),
        ([b"no\xff"], "No such command"),
        ([b"--no\xff"], "No such option"),
        (["config", "init", b"\xff"], "unknown probe '\\udcff'"),
        (["config", "validate", "x" * 5000], "cannot be read: File name too long"),
        (["list", "x"], "unexpected extra argument"),
        ([], "Usage: "),
    ],
)
def test_a_bad_argument_gives_one_message_and_exit_code_2(arguments: list[str | bytes], message: str) -> None:
    done = probekit(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())


@pytest.mark.parametrize("probe", ["latency", "conntrack"])
def test_a_table_that_a_probe_does_not_have_is_refused_before_anything_is_measured(tmp_path: Path, probe: str) -> None:
    chain = f'export=[{{kind = "csv", path = "{tmp_path}/x.csv", table = "nope"}}]'
    done = probekit("run", probe, "--set", chain)
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: export[0].table = "nope": the probe {probe} has no such table (available: ')
    for table in done.stderr.partition("(available: ")[2].rstrip(")\n").split(", "):
        done = probekit("run", probe, "--duration", "200ms", "--set", chain.replace("nope", table))
        assert (done.returncode, (tmp_path / "x.csv").exists()) == (0, True), done.stderr


def test_not_root_says_what_to_do() -> None:
    done = probekit("run", "latency", "--duration", "1s", prefix=NOBODY)
    assert done.returncode == 3, done.stderr
    assert "user 65534 may not load programs into the kernel" in done.stderr
    assert "run as root (sudo), or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in done.stderr


def test_a_way_that_this_kernel_has_not_is_refused_with_the_reason() -> None:
    done = probekit("run", "latency", "--duration", "1s", "--set", "probe.latency.attach=kprobe")
    if done.returncode == 0:
        pytest.skip("this kernel has kprobes")
    assert done.returncode == 3
    assert "kprobe tcp_sendmsg_locked: this kernel has no kprobes" in done.stderr


def test_check_attaches_for_real_and_is_content_here() -> None:
    done = probekit("check", "latency")
    assert done.returncode == 0, done.stdout
    assert "tracepoint tcp_rcv_space_adjust: works" in done.stdout
    assert "MB locked" in done.stdout


def test_packages_in_another_users_home_are_not_taken(tmp_path: Path) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tmp_path / ".local" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    for harm in (False, True):
        if harm:
            os.chown(tmp_path / ".local", 12345, 12345)
        done = probekit("list", prefix=["env", f"HOME={tmp_path}"])
        assert done.returncode == (3 if harm else 0), done.stderr
    assert f"{packages}, as HOME says, and {tmp_path}/.local belongs to user 12345" in done.stderr
    assert "PYTHONNOUSERSITE=1" in done.stderr
    assert probekit("list", prefix=["env", f"HOME={tmp_path}", "PYTHONNOUSERSITE=1"]).returncode == 0
