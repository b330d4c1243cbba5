"""Every hook.

A plugin is a module, named by an entry point; the entry point's name is the plugin's. Which hooks it implements depends
on the entry point's group: `probekit.probes`, `probekit.aggregators` or `probekit.exporters`.

A hook is called once, while a run is put together, and on that one plugin. It returns an object; what happens for each
batch or snapshot is a plain method call on that object. An implementation may leave out the arguments it does not need.
"""

from __future__ import annotations

from typing import Any

import pluggy

from ..machine.kernel import KernelFacts
from ..machine.look import Machine
from ..model import Aggregator, Attached, AttachPlan, Decoder, Exporter, LiveMap, Source

PROJECT = "probekit"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def probekit_config(name: str) -> type:  # type: ignore[empty-body]
    """Returns the configuration class: an attrs class whose fields are made by `probekit.option`.

    Args:
        name: The plugin's name.

    Returns:
        The class of the probe's `[probe.NAME]` table, the aggregator's `[[aggregate]]` or the exporter's `[[export]]`
        table.
    """


@hookspec(firstresult=True)
def probekit_attach(probe: str, config: Any, kernel: KernelFacts) -> AttachPlan:  # type: ignore[empty-body]
    """Says what the probe wants of the kernel. Pure: it loads nothing and opens nothing.

    Args:
        probe: The probe's name.
        config: An instance of its configuration class.
        kernel: What this kernel offers.

    Returns:
        The C source, the observations with their alternatives, best first, and the sources of data.
    """


@hookspec(firstresult=True)
def probekit_decode(probe: str, config: Any, source: Source, map: LiveMap) -> Decoder:  # type: ignore[empty-body]  # noqa: A002
    """Returns a function that turns batches of one source into columns.

    Args:
        probe: The probe's name.
        config: An instance of its configuration class.
        source: One of the plan's sources.
        map: The map behind it, with its layout as the compiler describes it.

    Returns:
        The function, which is called with each batch of that source.
    """


@hookspec(firstresult=True)
def probekit_aggregate(  # type: ignore[empty-body]
    probe: str, config: Any, attached: tuple[Attached, ...], began: int, machine: Machine
) -> Aggregator:
    """Returns the object that keeps a probe's figures, or adds figures to somebody else's probe.

    An aggregator that is added to a probe gets the same columns as the probe's own, after it and read-only. Its figures
    appear with the probe's, with the aggregator's name and a dot before each; it has no stream.

    Args:
        probe: The probe's name. For an added aggregator: the name of the probe that it is added to.
        config: An instance of the plugin's configuration class.
        attached: How each observation of the probe's plan was attached, if it was.
        began: The moment from which programs count, in ns of CLOCK_MONOTONIC as they read it. Later times are in
            `taken` of the columns; an aggregator reads no clock.
        machine: What an aggregator asks where it wants to know something of the machine, so that the answers are in a
            recording; it looks at nothing else.

    Returns:
        An object that gets every batch of columns and is asked for the figures at each interval and at the end.
    """


@hookspec(firstresult=True)
def probekit_export(exporter: str, config: Any) -> Exporter:  # type: ignore[empty-body]
    """Returns an exporter.

    Args:
        exporter: The exporter's name.
        config: An instance of its configuration class.

    Returns:
        A context manager that gets every snapshot of every probe of the run.
    """
