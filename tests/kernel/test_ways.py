"""Each way attaches what it says, or refuses with the reason."""

from __future__ import annotations

import subprocess
import sys

from .conftest import LiveProbe, attach_error

COMMAND = [sys.executable, "-c", "from probekit.cli import main; main()"]


def probekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=110)


def test_the_way_is_the_one_asked_for(probe: LiveProbe, way: str) -> None:
    needed = {name: point for name, point in probe.attached.items() if name != "sendfile"}
    assert set(needed) == {"send", "receive", "arrival", "state"}
    for name, point in needed.items():
        assert point is not None
        assert point.way.value == ("tracepoint" if name == "state" else way)


def test_a_run_takes_the_way_or_ends_with_code_3_and_the_reason(way: str) -> None:
    done = probekit(
        "run", "latency", "--set", f"probe.latency.attach={way}", "--duration", "100ms", "--export", "json:/dev/null"
    )
    refused = attach_error(way)
    if refused is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 3
        assert refused.message in done.stderr
        assert "Traceback" not in done.stderr


def test_check_says_what_attaching_says(way: str) -> None:
    """So that the table of `./dev kernels` and `probekit check` agree."""
    done = probekit("check", "latency")
    refused = attach_error(way)
    if refused is None:
        assert f"  {way} tcp_sendmsg_locked: works" in done.stdout, done.stdout
    elif "this kernel has no kprobes" in refused.message:  # then they are not tried
        assert "kprobes: no" in done.stdout, done.stdout
    else:
        for line in refused.message.split("\n")[1:]:
            assert line.strip() in done.stdout, done.stdout
