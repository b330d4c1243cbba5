"""The chain of exporters: what blocks, fails or is slow holds up nobody else."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

import attrs
import numpy as np
import pytest

from probekit.errors import ExportError, ProbekitError
from probekit.export import chain
from probekit.export.chain import Chain, Link
from probekit.model import Column, Events, Snapshot, Table
from probekit.testing import sample


class Kept:
    """Keeps what it is given; a subclass does something besides."""

    def __init__(self) -> None:
        self.taken: list[Snapshot] = []
        self.left = threading.Event()

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left.set()

    def export(self, snapshot: Snapshot) -> None:
        self.taken.append(snapshot)


class Blocks(Kept):
    """Hangs in `export`, or in `__enter__`, until it is let go."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.let_go = threading.Event()

    def __enter__(self) -> Kept:
        if self.where == "__enter__":
            self.let_go.wait(60)
        return self

    def export(self, snapshot: Snapshot) -> None:
        if self.where == "export":
            self.let_go.wait(60)
        super().export(snapshot)


class FailsFirst(Kept):
    """Fails with the first snapshot."""

    def __init__(self, error: ExportError) -> None:
        super().__init__()
        self.error: ExportError | None = error

    def export(self, snapshot: Snapshot) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        super().export(snapshot)


class Failed:
    """What was said."""

    def __init__(self) -> None:
        self.errors: list[ProbekitError] = []
        self.said: list[str] = []

    def link(self, exporter: Kept, name: str = "x") -> Link:
        return Link(name, exporter, lambda _: contextlib.nullcontext(), self.errors.append, self.said.append)


@pytest.fixture
def failed() -> Failed:
    return Failed()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "OPENING_SECONDS", 0.2)
    monkeypatch.setattr(chain, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(chain, "_SAY_SECONDS", 0.1)


def _looks(_: Snapshot) -> None:
    """Nobody watches."""


def _snapshots(count: int) -> list[Snapshot]:
    return [attrs.evolve(sample(final=False), taken=1000.0 + n) for n in range(count)]


def _until(true: object) -> None:
    by = time.monotonic() + 10
    while not true():  # type: ignore[operator]
        assert time.monotonic() < by
        time.sleep(0.005)


def test_every_exporter_gets_every_snapshot_in_order_and_is_closed(failed: Failed) -> None:
    one, two = Kept(), Kept()
    made = Chain([failed.link(one), failed.link(two)], _looks)
    assert made.open()
    for snapshot in _snapshots(3):
        made.put(snapshot)
        _until(lambda snapshot=snapshot: one.taken[-1:] == two.taken[-1:] == [snapshot])
    made.end([sample()])
    for kept in (one, two):
        assert [snapshot.taken for snapshot in kept.taken] == [1000.0, 1001.0, 1002.0, 1010.0]
        assert kept.left.is_set()
    assert not failed.errors


def test_one_that_blocks_holds_up_neither_the_others_nor_the_end(failed: Failed) -> None:
    blocks, kept = Blocks("export"), Kept()
    made = Chain([failed.link(blocks, "slow"), failed.link(kept)], _looks)
    assert made.open()
    for snapshot in _snapshots(2):
        made.put(snapshot)
    _until(lambda: len(kept.taken) == 2)
    made.end([sample()])
    assert [snapshot.final for snapshot in kept.taken] == [False, False, True]
    (error,) = failed.errors
    assert error.message.startswith("slow has taken nothing for ")
    assert error.exit_code == 4
    assert failed.said == ["waiting for slow ..."]
    blocks.let_go.set()


def test_one_that_works_for_long_is_waited_for(failed: Failed) -> None:
    class Works(Kept):
        def export(self, snapshot: Snapshot) -> None:
            by = time.monotonic() + 3 * chain.STUCK_SECONDS
            while time.monotonic() < by:
                pass
            super().export(snapshot)

    works = Works()
    made = Chain([failed.link(works)], _looks)
    assert made.open()
    made.end([sample()])
    assert len(works.taken) == 1
    assert not failed.errors


def test_one_that_blocks_while_it_is_opened_is_left_behind(failed: Failed) -> None:
    blocks, kept = Blocks("__enter__"), Kept()
    made = Chain([failed.link(blocks, "slow"), failed.link(kept)], _looks)
    assert made.open()
    assert failed.errors[0].message.startswith("slow is not open yet")
    made.put(sample(final=False))
    _until(lambda: kept.taken)
    blocks.let_go.set()  # it opens in the end, and has missed nothing
    made.end([sample()])
    assert [snapshot.final for snapshot in blocks.taken] == [False, True]


def test_a_failure_is_said_at_once_and_the_next_snapshot_is_tried(failed: Failed) -> None:
    kept = FailsFirst(ExportError("no room"))
    made = Chain([failed.link(kept)], _looks)
    assert made.open()
    first, second = _snapshots(2)
    made.put(first)
    _until(lambda: failed.errors)
    assert failed.errors[0].message == "no room"
    made.put(second)
    made.end([sample()])
    assert [snapshot.taken for snapshot in kept.taken] == [1001.0, 1010.0]


def test_nothing_is_measured_for_exporters_that_cannot_be_opened(failed: Failed) -> None:
    class Refuses(Kept):
        def __enter__(self) -> Kept:
            raise ExportError("no such folder")

    assert not Chain([failed.link(Refuses())], _looks).open()
    assert [error.message for error in failed.errors] == ["no such folder"]


def test_where_nobody_reads_any_more_all_are_gone(failed: Failed) -> None:
    error = ExportError("standard output: Broken pipe")
    error.__cause__ = BrokenPipeError()
    made = Chain([failed.link(FailsFirst(error))], _looks)
    assert made.open()
    assert not made.gone
    made.put(sample(final=False))
    _until(lambda: made.gone)
    made.end([])


def test_who_does_not_keep_up_gets_the_newest_ones_and_that_is_said(failed: Failed) -> None:
    blocks = Blocks("export")
    made = Chain([failed.link(blocks, "slow")], _looks)
    assert made.open()
    snapshots = _snapshots(9)
    made.put(snapshots[0])
    for snapshot in snapshots[1:]:
        made.put(snapshot)
    blocks.let_go.set()
    made.end([sample()])
    taken = [snapshot.taken for snapshot in blocks.taken]
    assert taken[-3:] == [1007.0, 1008.0, 1010.0]
    assert len(taken) < 10
    left_out = 10 - len(taken)
    assert f"slow did not keep up: {left_out} snapshots were left out" in failed.said


def test_one_whose_snapshots_replace_each_other_gets_the_newest_without_a_word(failed: Failed) -> None:
    class Replaces(Blocks):
        replaces = True

    blocks = Replaces("export")
    made = Chain([failed.link(blocks)], _looks)
    assert made.open()
    for snapshot in _snapshots(9):
        made.put(snapshot)
    blocks.let_go.set()
    made.end([sample()])
    assert len(blocks.taken) <= 2  # the one that it was at, and the last one
    assert blocks.taken[-1].final
    assert not failed.errors
    assert not [line for line in failed.said if "keep up" in line]


class Streams(Blocks):
    """Takes events, too."""

    def __init__(self) -> None:
        super().__init__("export")
        self.blocked = threading.Event()
        self.events: list[int] = []

    def export(self, snapshot: Snapshot) -> None:
        self.blocked.set()
        super().export(snapshot)

    def stream(self, events: Events) -> None:
        self.events += events.table.key.tolist()


def _events(first: int, count: int) -> Events:
    numbers = np.arange(first, first + count)
    return Events("wiggle", Table("events", (Column("n", numbers),), numbers))


def test_events_reach_those_who_take_them_in_their_order(failed: Failed) -> None:
    streams, kept = Streams(), Kept()
    made = Chain([failed.link(streams), failed.link(kept)], _looks)
    assert made.open()
    streams.let_go.set()
    for first in range(0, 30, 3):
        made.stream(_events(first, 3))
    made.end([sample()])
    assert streams.events == list(range(30))
    assert len(kept.taken) == len(streams.taken) == 1
    assert not failed.errors


def test_of_too_many_events_the_oldest_are_left_out_and_it_is_said(
    failed: Failed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_WAITING_EVENTS", 10)
    streams = Streams()
    made = Chain([failed.link(streams, "slow")], _looks)
    assert made.open()
    made.put(sample(final=False))
    assert streams.blocked.wait(10)
    for first in range(0, 30, 6):
        made.stream(_events(first, 6))
    streams.let_go.set()
    made.end([sample()])
    assert streams.events == list(range(18, 30))
    assert [str(error) for error in failed.errors] == ["slow does not keep up: 6 events of wiggle were left out"] * 3


def test_who_watches_sees_what_is_not_the_last_and_may_fail(failed: Failed) -> None:
    seen: list[float] = []

    def look(snapshot: Snapshot) -> None:
        seen.append(snapshot.taken)
        raise OSError("the terminal is gone")

    made = Chain([failed.link(Kept())], look)
    assert made.open()
    for snapshot in _snapshots(2):
        made.put(snapshot)
    _until(lambda: seen)
    made.end([sample()])
    assert not failed.errors
