"""Runs of programs that the kernel left out, by its own count.

A kernel that preempts programs leaves out what another task would run on that CPU meanwhile. What a test counts then
lacks events, and the test says nothing about the probe but that it shows the loss.
"""

from __future__ import annotations

from typing import Any

_missed: dict[int, int] = {}


def note(run: object, result: dict[str, Any]) -> None:
    """Takes the count of a run from its result."""
    _missed[id(run)] = result["lost"]["programs_missed"]


def noted() -> int:
    """All that was noted so far."""
    return sum(_missed.values())
