"""How much of the verifier's patience the drop probe needs, which searches the kernel's stack in loops."""

from __future__ import annotations

import re
from typing import Any

import pytest

from probekit.machine import bpf
from probekit.testing import Harness, Harnesses

from .objects import DROPS

ENOUGH = 500_000  # instructions; at 1,000,000 the verifier gives up
FILTERS: list[dict[str, Any]] = [{"port": 80}, {"netns": "own"}, {"protocols": ["udp"]}]


def _processed(harness: Harness, patch: pytest.MonkeyPatch) -> dict[str, int]:
    """Instructions that the verifier looked at, of each program, also of those that it refused."""
    counts: dict[str, int] = {}
    load = bpf.load_program

    def counting(way: Any, name: str, code: bytes, target: int, of_program: int = 0, log: int = 0) -> tuple[int, str]:
        if not log:
            taken, words = load(way, name, code, target, of_program, bpf.LOG_WORDS)
            counts.update((name, int(number)) for number in re.findall(r"^processed (\d+) insns", words, re.MULTILINE))
            if taken >= 0:
                return taken, ""
        return load(way, name, code, target, of_program, log)

    with patch.context() as context:
        context.setattr(bpf, "load_program", counting)
        with harness.live():
            pass
    return counts


def _shape(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "defaults"


@pytest.mark.parametrize("options", DROPS, ids=_shape)
def test_the_verifier_takes_every_shape_of_the_drop_probe_with_ease(
    options: dict[str, Any], probe_harness: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = _processed(probe_harness("drops", **options), monkeypatch)
    assert any(name.startswith("drop_") for name in counts)
    assert max(counts.values()) < ENOUGH, f"{_shape(options)}: {counts}"


@pytest.mark.parametrize("options", FILTERS, ids=_shape)
def test_what_drops_are_filtered_by_makes_no_other_program(options: dict[str, Any], probe_harness: Harnesses) -> None:
    plan, other = probe_harness("drops", **options).plan(), probe_harness("drops", **DROPS[1]).plan()
    assert plan.defines == other.defines
    assert plan.parameters != other.parameters
