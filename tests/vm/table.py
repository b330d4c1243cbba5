"""Kernel x way x test, as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

WAYS = ("fentry", "kprobe", "tracepoint")
NO_TIME = "not run: the time for other kernels was over (./dev kernels has no limit)"
_ANY = "any way"


@frozen
class Outcome:
    """What became of a test on a kernel.

    Attributes:
        test: Its node id.
        kernel: Release.
        outcome: passed, failed or skipped.
        reason: Why it was skipped.
        notes: Figures that it recorded as its property `note`.
    """

    test: str
    kernel: str
    outcome: str
    reason: str
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return Path(self.test.partition("::")[0]).stem.removeprefix("test_")

    @property
    def way(self) -> str:
        parameters = re.split(r"[-\[\]]", self.test)
        return next((way for way in WAYS if way in parameters), _ANY)


def lines(outcomes: list[Outcome]) -> Iterator[str]:
    """The table, a row for each kernel and file, followed by what is not on which kernel, and by figures."""
    rows = sorted({(_order(one.kernel), one.kernel, one.file) for one in outcomes})
    columns = (*WAYS, _ANY)
    widths = [max(len(row[1]) for row in rows), max(len(row[2]) for row in rows)]
    yield f"{'kernel':{widths[0]}}  {'tests':{widths[1]}}  " + "  ".join(f"{way:>22}" for way in columns)
    for _, kernel, file in rows:
        cells = [[one for one in outcomes if (one.kernel, one.file, one.way) == (kernel, file, way)] for way in columns]
        yield f"{kernel:{widths[0]}}  {file:{widths[1]}}  " + "  ".join(f"{_cell(cell):>22}" for cell in cells)
    yield ""
    skipped = Counter((_order(one.kernel), one.kernel, one.reason) for one in outcomes if one.outcome == "skipped")
    for (_, kernel, reason), count in sorted(skipped.items()):
        yield f"{kernel}: {count} {reason}"
    for one in sorted(outcomes, key=lambda one: _order(one.kernel)):
        for note in one.notes:
            yield f"{one.kernel}: {note}"


def _order(kernel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", kernel)[:3])


def _cell(outcomes: list[Outcome]) -> str:
    count = Counter("unrun" if one.reason == NO_TIME else one.outcome for one in outcomes)
    names = {"passed": "passed", "failed": "FAILED", "skipped": "not here", "unrun": "NOT RUN"}
    return ", ".join(f"{count[outcome]} {name}" for outcome, name in names.items() if count[outcome]) or "-"
