"""The measuring loop with made-up probes and a made-up clock: intervals, the end, the order of what is done."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from probekit import Seconds
from probekit.config import RunSettings
from probekit.machine.kernel import KernelFacts
from probekit.model import Events, Figures, Run
from probekit.run import measurement
from probekit.run.measurement import Begun, Measurement

SECOND = 10**9


class Time:
    """Goes on when somebody waits."""

    def __init__(self) -> None:
        self.at = 0

    def now(self) -> int:
        return self.at

    def unix(self, moment: int) -> float:
        return moment / SECOND


class Over:
    """In place of an event: whoever waits makes time go on, until the end."""

    def __init__(self, time: Time, end: int) -> None:
        self._time = time
        self._end = end

    def wait(self, seconds: float) -> bool:
        self._time.at = min(self._time.at + max(round(seconds * SECOND), 1), self._end)
        return self.is_set()

    def is_set(self) -> bool:
        return self._time.at >= self._end

    def set(self) -> None:
        self._end = 0


class Loads:
    attached = ()

    def __init__(self, done: list[str]) -> None:
        self._done = done

    def end(self) -> None:
        self._done.append("end")

    def detach(self) -> None:
        self._done.append("detach")


class Source:
    def __init__(self) -> None:
        self.moment = -1

    def end(self, moment: int) -> None:
        self.moment = moment


class Probe:
    """Takes time to drain, the first time."""

    joins = False

    def __init__(self, time: Time, name: str, done: list[str], slow: int = 0) -> None:
        self.name = name
        self.loaded = Loads(done)
        self.sources = Source()
        self.events: list[Events] = []
        self._time = time
        self._done = done
        self._slow = slow

    def aggregate(self) -> None:
        self._done.append("aggregate")

    def drain(self) -> None:
        self._done.append("drain")
        self._time.at += self._slow
        self._slow = 0

    def end(self) -> None:
        self._done.append("over")

    def stream(self) -> Events | None:
        return self.events.pop() if self.events else None

    def figures(self, beside: Any) -> Figures:
        return Figures({"beside": sorted(beside)})


class Chained:
    def __init__(self) -> None:
        self.put_in: list[Any] = []
        self.ended: list[Any] = []
        self.streamed: list[Events] = []
        self.gone = False

    def put(self, snapshot: Any) -> None:
        self.put_in.append(snapshot)

    def stream(self, events: Events) -> None:
        self.streamed.append(events)

    def end(self, last: list[Any]) -> None:
        self.ended = last


class Gates:
    def __init__(self, done: list[str]) -> None:
        self._done = done

    def close(self) -> None:
        self._done.append("closed")


class Made:
    """A measurement of made-up things."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, end: int, slow: int = 0) -> None:
        self.time, self.done, self.chain = Time(), list[str](), Chained()
        self.probes = [Probe(self.time, name, self.done, slow) for name in ("first", "second")]
        over, time = Over(self.time, end), self.time

        class Ends(threading.Thread):
            def __init__(self, *_: Any) -> None:
                super().__init__()
                self.over = over
                self.moment = end

            def start(self) -> None:
                pass

            def join(self, timeout: float | None = None) -> None:
                time.at = max(time.at, end)

        monkeypatch.setattr(measurement, "Ending", Ends)
        monkeypatch.setattr("time.sleep", lambda _: None)
        begun = Begun(self.probes, None, Gates(self.done), time, 0, Run("id"))  # type: ignore[arg-type]
        kernel = KernelFacts.__new__(KernelFacts)
        object.__setattr__(kernel, "release", "6.1.0")
        self.measurement = Measurement(begun, self.chain, kernel, over)  # type: ignore[arg-type]

    def run(self, interval: float) -> None:
        self.measurement.run(RunSettings(duration=None, interval=Seconds(interval)))


def test_each_interval_has_a_snapshot_of_each_probe_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, end=3 * SECOND + SECOND // 2)
    made.run(1.0)
    assert [(s.probe, s.sequence, round(s.taken), s.final) for s in made.chain.put_in] == [
        (name, number, number + 1, False) for number in range(3) for name in ("first", "second")
    ]
    assert [(s.probe, s.sequence, s.taken, s.final) for s in made.chain.ended] == [
        ("first", 3, 3.5, True), ("second", 3, 3.5, True),
    ]  # fmt: skip
    assert {s.run.id for s in (*made.chain.put_in, *made.chain.ended)} == {"id"}
    assert made.chain.ended[1].figures.summary == {"beside": ["first"]}


def test_the_gate_is_closed_before_the_last_drain_and_nothing_is_detached_before_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made(monkeypatch, end=SECOND // 2)
    made.run(1.0)
    after = made.done[made.done.index("closed") :]
    assert after == ["closed", "end", "end", "drain", "over", "drain", "over", "detach", "detach"]
    assert [probe.sources.moment for probe in made.probes] == [SECOND // 2] * 2


def test_ring_buffers_are_looked_at_four_times_a_second_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, end=10 * SECOND)
    made.run(60.0)
    assert made.done.count("aggregate") >= 2 * 39
    assert not made.chain.put_in


def test_intervals_that_draining_takes_longer_than_are_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, end=10 * SECOND, slow=2 * SECOND)
    made.run(1.0)
    taken = [snapshot.taken for snapshot in made.chain.put_in if snapshot.probe == "first"]
    assert [round(each) for each in taken] == [5, 5, 6, 7, 8, 9]  # draining took 4 s; one is late, two are left out
    assert made.chain.ended


def test_a_run_ends_when_nobody_is_left_to_export_to(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, end=1000 * SECOND)
    made.chain.gone = True
    made.run(1.0)
    assert not made.chain.put_in
    assert "detach" in made.done


def test_events_are_handed_on_in_mid_run_and_the_last_ones_before_the_last_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made(monkeypatch, end=SECOND)
    first, last = Events("first", None), Events("first", None)  # type: ignore[arg-type]
    made.probes[0].events = [first]
    made.probes[1].events = [last]
    made.run(60.0)
    assert made.chain.streamed == [first, last]
