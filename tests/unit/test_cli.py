"""What the command line says of a machine that lacks something."""

from __future__ import annotations

import pytest

from probekit import cli


@pytest.mark.parametrize(("words", "code"), [("can't start new thread", 3), ("something else", 1)])
def test_a_thread_that_cannot_be_started_is_the_machines_fault(
    words: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr("probekit.machine.kernel.detect", refused)
    assert cli.invoke(["run", "latency", "--duration", "1s"]) == code
    assert ("internal error" in capsys.readouterr().err) == (code == 1)
