"""The stages, one after the other: the only module that imports all of them.

config -> plan -> compile -> load -> attach -> drain -> decode -> aggregate -> export
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from ..compile import compile_plan, load_object
from ..config import Settings
from ..errors import ExportError, LoadError, ProbekitError
from ..export.chain import Chain, Link
from ..load import Gate, Loaded
from ..machine import memory
from ..machine.kernel import KernelFacts
from ..machine.look import Machine
from ..model import Compiled, Planned, Snapshot
from ..plugins import EXPORTERS, PROBES, Plugins
from . import clock
from .identity import identify
from .stop import Stop

if TYPE_CHECKING:  # it needs NumPy
    from .measurement import Begun


def plan(settings: Settings, plugins: Plugins, kernel: KernelFacts) -> list[Planned]:
    """Stage 2: asks each probe what it wants."""
    return [
        Planned(
            name,
            config,
            plugins.call(PROBES, name, "probekit_attach", probe=name, config=config, kernel=kernel),
            tuple(aggregate for aggregate in settings.aggregates if aggregate.probe == name),
        )
        for name, config in settings.probes.items()
    ]


def compile_all(planned: list[Planned], kernel: KernelFacts, objects: Path | None) -> list[Compiled]:
    """Stage 3; where there is a folder of objects, nothing is compiled."""
    if objects is not None:
        return [Compiled(probe, load_object(probe.plan, kernel, objects)) for probe in planned]
    return [Compiled(probe, compile_plan(probe.plan, kernel)) for probe in planned]


def attach(probe: Compiled, kernel: KernelFacts, gate: Gate, stack: ExitStack) -> Loaded:
    """Stages 4 and 5: loads and attaches one probe behind a gate; the stack takes it off again."""
    loaded = stack.enter_context(Loaded(probe.object, probe.planned.plan, kernel, gate))
    loaded.attach()
    return loaded


@frozen
class Told:
    """Who is told what while a run goes on. Exporters call from threads of their own.

    Attributes:
        begun: Once, when all probes count, by their names.
        progress: Each probe's snapshot at each interval, in a thread of its own.
        failed: What exporters and plugins fail with, when they do, while others go on.
        said: A line that is worth saying and no failure.
    """

    begun: Callable[[Mapping[str, Loaded]], None]
    progress: Callable[[Snapshot], None]
    failed: Callable[[ProbekitError], None]
    said: Callable[[str], None]


def run(
    settings: Settings, plugins: Plugins, kernel: KernelFacts, stop: Stop, told: Told, objects: Path | None = None
) -> None:
    """Puts a run together, measures, and takes everything off again.

    Args:
        settings: The configuration.
        plugins: The installed plugins.
        kernel: Facts.
        stop: Set to end the run.
        told: Who is told what.
        objects: A folder that `probekit compile` wrote.

    Raises:
        ProbekitError: Something is wrong with the input or the machine; nothing is left attached.
    """
    planned = plan(settings, plugins, kernel)
    if any(getattr(export.settings, "table", "") for export in settings.exports):
        from . import tables  # NumPy

        tables.check(planned, settings.exports, plugins)
    compiled = compile_all(planned, kernel, objects)
    memory.give_back()
    chain = Chain(_links(settings, plugins, told), told.progress)
    if not chain.open():
        return
    with ExitStack() as stack:
        stack.callback(chain.end, [])
        begun = begin(compiled, plugins, kernel, stack, told.failed, told.begun)

        from .measurement import Measurement

        Measurement(begun, chain, kernel, stop).run(settings.run)


def begin(
    probes: list[Compiled],
    plugins: Plugins,
    kernel: KernelFacts,
    stack: ExitStack,
    failed: Callable[[ProbekitError], None],
    counting: Callable[[Mapping[str, Loaded]], None] = lambda loaded: None,
    machine: Machine | None = None,
) -> Begun:
    """Stages 4 to 6: attaches all probes, and lets all of them count from one moment on.

    What needs NumPy is imported meanwhile: its import takes as long as attaching.

    Args:
        probes: What to attach.
        plugins: The installed plugins.
        kernel: Facts.
        stack: Takes everything off again.
        failed: Told of what plugins fail with later on.
        counting: Called at that moment.
        machine: What aggregators ask; the machine itself where none is given.
    """
    gate, programs_clock = _gate_and_clock(stack)
    importing = threading.Thread(target=importlib.import_module, args=("numpy",), name="importing")
    importing.start()
    try:
        loaded = {probe.planned.name: attach(probe, kernel, gate, stack) for probe in probes}
    finally:
        importing.join()

    from .measurement import Begun, Collector
    from .probe import Running, open_sources, parts_of

    sources = [
        open_sources(probe.planned, each, plugins, kernel, programs_clock, stack)
        for probe, each in zip(probes, loaded.values(), strict=True)
    ]
    collector = Collector(sources)
    collector.start()
    stack.callback(collector.end)
    began = programs_clock.now()
    gate.open()
    counting(loaded)
    for each in loaded.values():
        each.begin()
    asked = machine or Machine()
    running = [
        Running(probe.planned.name, each, source, parts_of(probe.planned, plugins, each.attached, began, asked), failed)
        for probe, each, source in zip(probes, loaded.values(), sources, strict=True)
    ]
    return Begun(running, collector, gate, programs_clock, began, identify(programs_clock, began))


def _gate_and_clock(stack: ExitStack) -> tuple[Gate, clock.Clock]:
    """What all programs of the run have in common.

    Raises:
        LoadError: The kernel refuses one of them.
    """
    try:
        return stack.enter_context(Gate()), clock.detect()
    except OSError as error:
        raise LoadError(f"the kernel refuses a map or a program of probekit's own: {error.strerror}") from error


def _links(settings: Settings, plugins: Plugins, told: Told) -> list[Link]:
    """The chain's exporters, not opened yet."""
    return [
        Link(
            f"exporter {export.kind} ({export.place})",
            plugins.call(EXPORTERS, export.kind, "probekit_export", exporter=export.kind, config=export.settings),
            functools.partial(plugins.blaming, EXPORTERS, export.kind, kind=ExportError),
            told.failed,
            told.said,
        )
        for export in settings.exports
    ]
