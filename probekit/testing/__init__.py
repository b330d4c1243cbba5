"""A pytest plugin for the tests of probes, aggregators and exporters.

It comes with probekit and needs no line in `conftest.py`:

    def test_contract() -> None:
        assert_plugin_contract("probe", "dns")

    def test_figures(probe_harness: Harnesses) -> None:
        snapshot = probe_harness("dns", port=53).replay(Recording.load(FILE))

What needs a kernel skips the test where there is none to be had, with the reason; what the author can mend fails it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import plugins
from ..compile import compile_plan
from ..config import structure
from ..errors import AttachError, InputError, MissingError, ProbekitError, VerifierError
from ..machine import kernel
from ..machine.kernel import PRIVILEGES, KernelFacts
from ..machine.look import Machine, RecordedMachine, ReplayedMachine
from ..model import (
    Attached,
    AttachPlan,
    Batch,
    Compiled,
    Decoder,
    Events,
    LiveMap,
    Object,
    Planned,
    Snapshot,
    Source,
)
from ..plugins import AGGREGATORS, EXPORTERS, PROBES
from ..run import compose
from ..run.measurement import Begun
from ..run.probe import Running, Sources, parts_of
from .contract import Unchecked, contract_faults, export, sample
from .recording import Recording

_RECORD_AGAIN = "if the probe has changed since this was recorded, `pytest --record` makes the recording again, as root"


class Harness:
    """A probe of an installed package, with what tests do to it.

    Attributes:
        name: The probe's name.
        config: An instance of its configuration class.
        kernel: Facts about this kernel.
    """

    def __init__(self, name: str, options: Mapping[str, Any], aggregators: Mapping[str, Mapping[str, Any]]) -> None:
        self.name = name
        self.kernel: KernelFacts = kernel.detect()
        self._plugins = plugins.discover()
        document = {
            "probe": {name: dict(options)},
            "aggregate": [{"kind": kind, "probe": name, **table} for kind, table in aggregators.items()],
        }
        types = [partial(self._plugins.config_type, group) for group in (PROBES, AGGREGATORS, EXPORTERS)]
        self._settings = structure(document, (name,), types[0], types[1], types[2], "the test's options")
        self.config: Any = self._settings.probes[name]

    def plan(self) -> AttachPlan:
        """What the probe wants of this kernel."""
        return self._planned().plan

    def compile(self) -> Object:
        """Compiles its C source for this kernel and loads no program; skips where that takes more privileges."""
        compiled: Object = _or_skip(self.kernel, self.compiled)
        return compiled

    def compiled(self) -> Object:
        """The same, and raises MissingError where the machine cannot."""
        return compile_plan(self.plan(), self.kernel)

    def replay(self, batches: Recording | Iterable[Batch], maps: dict[str, LiveMap] | None = None) -> Snapshot:
        """The figures of recorded or made-up batches; needs neither root nor a kernel.

        Args:
            batches: What was drained.
            maps: Of made-up batches, what `probekit_decode` gets: that of a recording.

        Raises:
            InputError: The probe cannot take them; a recording may be of an older version of it.
        """
        if not isinstance(batches, Recording):
            made_up = tuple(batches)
            began = made_up[0].taken if made_up else 0
            return self._replayed(Recording(self.name, maps or {}, made_up, began, (), (), ()), Machine())
        try:
            return self._replayed(batches, ReplayedMachine(batches.answers))
        except ProbekitError as error:
            raise InputError(f"{error.message}\n{_RECORD_AGAIN}", _RECORD_AGAIN) from error

    def _replayed(self, recording: Recording, machine: Machine) -> Snapshot:
        maps = recording.maps
        decoders = {
            source.name: self._decoder(source, maps[source.name])
            for source in self.plan().sources
            if source.name in maps
        }
        unknown = {batch.source for batch in recording.batches} - decoders.keys()
        if unknown:
            raise InputError(
                f"the plan of {self.name} has no source {', '.join(sorted(unknown))}, or no map is given for it"
            )
        parts = parts_of(self._planned(), self._plugins, recording.attached, recording.began, machine)
        sources = Sources([], lambda: recording.began)
        running = Running(self.name, _Nowhere(), sources, parts, _raise)  # type: ignore[arg-type]
        for number, batch in enumerate(recording.batches):
            for _ in range(recording.snapshots[:-1].count(number)):
                running.figures()
            running.take(decoders[batch.source], batch)
        for _ in range(recording.snapshots[:-1].count(len(recording.batches))):
            running.figures()
        running.end()
        return _snapshot(running, self.kernel, time.time(), recording.attached)

    @contextmanager
    def live(self) -> Iterator[Live]:
        """Attaches the probe to this kernel, and takes it off again; skips where this machine cannot."""
        planned = self._planned()
        compiled = self.compile()
        with ExitStack() as stack:
            ready = [Compiled(planned, compiled)]
            machine = RecordedMachine()
            begun = _or_skip(
                self.kernel,
                lambda: compose.begin(ready, self._plugins, self.kernel, stack, _raise, machine=machine),
            )
            yield Live(begun, self.kernel, machine)

    def _planned(self) -> Planned:
        return compose.plan(self._settings, self._plugins, self.kernel)[0]

    def _decoder(self, source: Source, live: LiveMap) -> Decoder:
        arguments = {"probe": self.name, "config": self.config, "source": source, "map": live}
        decoder: Decoder = self._plugins.call(PROBES, self.name, "probekit_decode", **arguments)
        return decoder


class Live:
    """A probe that is attached.

    Attributes:
        attached: How.
    """

    def __init__(self, begun: Begun, facts: KernelFacts, machine: RecordedMachine) -> None:
        (self._running,) = begun.running
        self._machine = machine
        self._snapshots: list[int] = []
        self._last: Snapshot | None = None
        self.attached: tuple[Attached, ...] = self._running.loaded.attached
        self._begun = begun
        self._kernel = facts
        self._recorded: list[Batch] = []
        self._running.sources.record(self._recorded)

    def snapshot(self) -> Snapshot:
        """The figures as they are now."""
        self._running.drain()
        return self._figures()

    def _figures(self) -> Snapshot:
        self._snapshots.append(len(self._recorded))
        return _snapshot(self._running, self._kernel, self._begun.clock.unix(self._begun.began), self.attached)

    def stream(self) -> Events | None:
        """Events since the last call, where there are some."""
        return self._running.stream()

    def close(self) -> None:
        """Ends the measurement: nothing counts any more, and the last figures can be looked at."""
        self._begun.close()

    def finish(self) -> Snapshot:
        """Ends the measurement and detaches; the last figures."""
        if self._last is None:
            self.close()
            self._running.drain()
            self._running.end()
            self._last = self._figures()
            self._running.loaded.detach()
        return self._last

    def record(self, path: Path) -> Recording:
        """Ends the measurement, and writes what was drained and asked to a file."""
        self.finish()
        there = self._running.loaded.maps
        maps = {batch.source: there[batch.source] for batch in self._recorded}
        recording = Recording(
            self._running.name, maps, tuple(self._recorded), self._begun.began, self.attached,
            tuple(self._machine.answers), tuple(self._snapshots),
        )  # fmt: skip
        recording.save(path)
        return recording


Harnesses = Callable[..., Harness]


@pytest.fixture(scope="session")
def probe_harness() -> Harnesses:
    """A function: `probe_harness("dns", port=53)` is the harness of a probe with these options.

    `probe_harness("dns", {"port": 53})` is the same, for options of any name. The keyword `aggregators` adds some:
    `aggregators={"ports": {"most": 10}}`.
    """

    def harness(
        probe: str,
        options: Mapping[str, Any] | None = None,
        /,
        *,
        aggregators: Mapping[str, Mapping[str, Any]] | None = None,
        **more: Any,
    ) -> Harness:
        return Harness(probe, {**(options or {}), **more}, aggregators or {})

    return harness


def assert_plugin_contract(
    kind: str, name: str, options: Mapping[str, Any] | None = None, readme: Path | None = None
) -> None:
    """Checks an installed plugin against all that the core, the exporters and users expect of one.

    Names, the configuration with its defaults, documented options; of a probe a plan without effects, layouts that
    agree with the compiler's, figures that come through every installed exporter, nothing left after detaching; of an
    exporter that it takes any snapshot and refuses what it cannot write before anything is measured.

    Args:
        kind: `probe`, `aggregator` or `exporter`.
        name: Its name.
        options: Of its TOML table, where the defaults do not do; an aggregator's has the `probe` to add it to.
        readme: What documents the options; without it the README in the package's metadata.

    Raises:
        AssertionError: With everything that is wrong.
    """
    faults: list[str] = []
    unchecked: list[str] = []
    for fault in contract_faults(kind, name, options or {}, Harness, readme):
        (unchecked if isinstance(fault, Unchecked) else faults).append(str(fault))
    assert not faults, f"{kind} {name} does not keep the contract:\n" + "\n".join(f"  {fault}" for fault in faults)
    if unchecked:
        pytest.skip(f"{kind} {name} keeps what could be checked here; not checked: {'; '.join(unchecked)}")


def exported(name: str, /, *snapshots: Snapshot, **options: Any) -> None:
    """Sends snapshots through an installed exporter, as a run does.

    Args:
        name: The exporter's name.
        snapshots: Such as `sample()`, or what a harness gives.
        options: Of its TOML table.
    """
    found = plugins.discover()
    types = [partial(found.config_type, group) for group in (PROBES, AGGREGATORS, EXPORTERS)]
    document = {"export": [{"kind": name, **options}]}
    (settings,) = structure(document, (), types[0], types[1], types[2], "the test's options").exports
    export(found, name, settings.settings, snapshots)


class _Nowhere:
    """In place of what is loaded, where nothing is."""

    unreached = unlisted = 0

    def missed(self) -> int:
        return 0


def _snapshot(running: Running, facts: KernelFacts, started: float, attached: tuple[Attached, ...] = ()) -> Snapshot:
    return Snapshot(running.name, started, time.time(), True, facts.release, attached, running.figures())


def _raise(error: ProbekitError) -> None:
    raise error


def _or_skip(facts: KernelFacts, do: Callable[[], Any]) -> Any:
    if not facts.privileged:
        pytest.skip(f"needs privileges: {PRIVILEGES}")
    try:
        return do()
    except MissingError as error:
        pytest.skip(f"not on this machine: {error.message}")
    except VerifierError:
        raise
    except AttachError as error:
        pytest.skip(f"not on this kernel: {error.message}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--record`, for tests that make the recordings which others read."""
    parser.getgroup("probekit").addoption("--record", action="store_true", help="make recordings of batches again")


__all__ = [
    "Harness", "Harnesses", "Live", "Recording", "assert_plugin_contract", "exported", "probe_harness", "sample",
]  # fmt: skip
