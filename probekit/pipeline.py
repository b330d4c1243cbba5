"""The stages, one after the other: the only module that imports all of them.

config -> plan -> compile -> load -> attach -> drain -> decode -> aggregate -> export
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import frozen

from .compile import compile_plan, load_object
from .config import Aggregate, Settings
from .errors import ExportError, ProbekitError
from .kernel import KernelFacts
from .load import Loaded
from .model import AttachPlan, Exporter, Object, Snapshot
from .plugins import EXPORTERS, PROBES, Plugins
from .stop import Stop


@frozen
class Planned:
    """A probe that is put together but has not touched the kernel.

    Attributes:
        name: The probe's name.
        config: An instance of its configuration class.
        plan: What it wants of the kernel.
        aggregates: Aggregators that are added to its own.
    """

    name: str
    config: Any
    plan: AttachPlan
    aggregates: tuple[Aggregate, ...] = ()


@frozen
class Compiled:
    """A probe that is ready to be loaded."""

    planned: Planned
    object: Object


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


def attach(probe: Compiled, kernel: KernelFacts, stack: ExitStack) -> Loaded:
    """Stages 4 and 5: loads and attaches one probe; the stack takes it off again."""
    loaded = stack.enter_context(Loaded(probe.object, probe.planned.plan, kernel))
    loaded.attach()
    return loaded


def run(
    settings: Settings,
    plugins: Plugins,
    kernel: KernelFacts,
    stop: Stop,
    attached: Callable[[Mapping[str, Loaded]], None],
    progress: Callable[[Snapshot], None],
    objects: Path | None = None,
) -> list[ProbekitError]:
    """Puts a run together, measures, and takes everything off again.

    Args:
        settings: The configuration.
        plugins: The installed plugins.
        kernel: Facts.
        stop: Set to end the run.
        attached: Called once, when every program is attached.
        progress: Called with each probe's snapshot at each interval.
        objects: A folder that `probekit compile` wrote.

    Returns:
        What exporters and probes failed with while others went on.

    Raises:
        ProbekitError: Something is wrong with the input or the machine; nothing is left attached.
    """
    compiled = compile_all(plan(settings, plugins, kernel), kernel, objects)
    failures: list[ProbekitError] = []
    with ExitStack() as stack:
        exporters = _enter_exporters(settings, plugins, stack, failures)
        if not exporters:
            return failures
        loaded = {probe.planned.name: attach(probe, kernel, stack) for probe in compiled}
        attached(loaded)

        from .measure import Measurement  # NumPy: the kernel measures already
        from .running import start

        running = [start(probe.planned, loaded[probe.planned.name], plugins, kernel, stack) for probe in compiled]
        Measurement(running, exporters, kernel, stop, failures).run(settings.run, progress)
    return failures


def _enter_exporters(
    settings: Settings, plugins: Plugins, stack: ExitStack, failures: list[ProbekitError]
) -> list[Exporter]:
    """The chain, entered; an exporter that fails to is left out."""
    exporters: list[Exporter] = []
    for export in settings.exports:
        arguments = {"exporter": export.kind, "config": export.settings}
        exporter = plugins.call(EXPORTERS, export.kind, "probekit_export", **arguments)
        guarded = Guarded(exporter, plugins, export.kind)
        try:
            guarded.__enter__()
        except ExportError as error:
            failures.append(error)
            continue
        stack.push(_leaving(guarded, failures))
        exporters.append(guarded)
    return exporters


class Guarded:
    """An exporter that fails with ExportErrors alone, whatever the plugin raises."""

    def __init__(self, exporter: Exporter, plugins: Plugins, kind: str) -> None:
        self._exporter = exporter
        self._blaming = functools.partial(plugins.blaming, EXPORTERS, kind)

    def __enter__(self) -> Guarded:
        """Opens what it writes to."""
        self._call("__enter__")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self._call("__exit__", kind, error, trace)

    def export(self, snapshot: Snapshot) -> None:
        """Takes one snapshot of one probe."""
        self._call("export", snapshot)

    def _call(self, method: str, *arguments: Any) -> None:
        try:
            with self._blaming(method):
                getattr(self._exporter, method)(*arguments)
        except ExportError:
            raise
        except ProbekitError as error:
            raise ExportError(error.message, error.hint) from error


def _leaving(exporter: Exporter, failures: list[ProbekitError]) -> Callable[..., None]:
    """Leaves an exporter when the run is over; its failure is not the run's."""

    def leave(*error: Any) -> None:
        try:
            exporter.__exit__(*error)
        except ExportError as failure:
            failures.append(failure)

    return leave
