"""Standard streams that are closed, full, read by nobody, or no terminal: a message and a code, never a traceback."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from .conftest import PROBEKIT

COMMANDS = ["list", "config init latency drops", "check latency", "--help", "run --help", "--version"]
RUN = "run latency --duration 200ms"


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command with redirections, which has no terminal."""
    script = line.replace("probekit", PROBEKIT, 1)
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.mark.parametrize("command", [*COMMANDS, RUN, f"{RUN} --export json", f"{RUN} --export jsonl"])
@pytest.mark.parametrize(
    ("redirection", "message"), [(">/dev/full", ": No space left on device"), (">&-", " is closed")]
)
def test_standard_output_that_cannot_be_written_is_named(
    tmp_path: Path, command: str, redirection: str, message: str
) -> None:
    done = shell(f"probekit {command} {redirection}", tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith("measuring")]
    assert [line.partition(";")[0] for line in said] == [f"error: standard output{message}"]
    assert done.returncode == 4


@pytest.mark.parametrize("command", [*COMMANDS, RUN])
def test_a_pipe_that_nobody_reads_gets_no_traceback(tmp_path: Path, command: str) -> None:
    done = shell(f"probekit {command} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode in (0, 4)  # what fits into the pipe before it is closed was written
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full"])
def test_a_run_to_a_file_needs_no_standard_stream(tmp_path: Path, redirection: str) -> None:
    done = shell(f"probekit {RUN} --export json:out.json {redirection}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["probe"] == "latency"


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- >&- <&-"])
def test_an_error_that_nobody_can_read_has_its_code(tmp_path: Path, redirection: str) -> None:
    assert shell(f"probekit run latecny {redirection}", tmp_path).returncode == 2
    assert shell(f"probekit run latency --zzz {redirection}", tmp_path).returncode == 2


def test_what_was_written_to_standard_output_is_whole_without_standard_error(tmp_path: Path) -> None:
    assert (
        shell("probekit config init latency 2>&-", tmp_path).stdout
        == shell("probekit config init latency", tmp_path).stdout
    )


def on_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
    process = subprocess.Popen(
        [PROBEKIT, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env={**variables, **environment}
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # the terminal's other end is closed
        pass
    finally:
        os.close(ours)
        assert process.wait(60) in (0, 2)
    return written.decode()


@pytest.mark.parametrize(
    "arguments",
    [["check", "latency"], ["run", "latency", "--duration", "200ms"], ["run", "latecny"], ["--help"], ["run", "--zzz"]],
    ids=" ".join,
)
def test_colours_are_for_terminals_that_have_them_and_want_them(arguments: list[str]) -> None:
    if arguments[0] in ("check", "run") and "--zzz" not in arguments:
        assert "\x1b[" in on_terminal(*arguments, TERM="xterm-256color")
        assert "\x1b[" in on_terminal(*arguments, TERM="xterm-256color", NO_COLOR="")
    assert "\x1b[" not in on_terminal(*arguments, TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b[" not in on_terminal(*arguments, TERM="dumb")
    assert "\x1b[" not in on_terminal(*arguments)
