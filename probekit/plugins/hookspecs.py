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
from ..model import Aggregator, Attached, AttachPlan, Decoder, Exporter, LiveMap, Source

PROJECT = "probekit"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def probekit_config(name: str) -> type:  # type: ignore[empty-body]
    """The configuration class: an attrs class whose fields are made by `probekit.option`.

    Args:
        name: The plugin's name.

    Returns:
        The class of the probe's `[probe.NAME]` table, the aggregator's `[[aggregate]]` or the exporter's `[[export]]`
        table.
    """


@hookspec(firstresult=True)
def probekit_attach(probe: str, config: Any, kernel: KernelFacts) -> AttachPlan:  # type: ignore[empty-body]
    """What the probe wants of the kernel. Pure: it loads nothing and opens nothing.

    Args:
        probe: The probe's name.
        config: An instance of its configuration class.
        kernel: What this kernel offers.

    Returns:
        The C source, the observations with their alternatives, best first, and the sources of data.
    """


@hookspec(firstresult=True)
def probekit_decode(probe: str, config: Any, source: Source, map: LiveMap) -> Decoder:  # type: ignore[empty-body]  # noqa: A002
    """A function from batches of one source to columns.

    Args:
        probe: The probe's name.
        config: An instance of its configuration class.
        source: The source, one of those of the plan.
        map: The map behind it, with its layout as the compiler has it.

    Returns:
        A function that is called with each batch of that source.
    """


@hookspec(firstresult=True)
def probekit_aggregate(  # type: ignore[empty-body]
    probe: str, config: Any, attached: tuple[Attached, ...], began: int
) -> Aggregator:
    """The keeper of a probe's figures, or of further figures for a probe of somebody else's.

    An aggregator that is added to a probe gets the same columns as the probe's own, after it and read-only. Its figures
    come out with the probe's, each name with the aggregator's and a dot before it; it has no stream.

    Args:
        probe: The probe's name; of an aggregator that is added, the name of the probe that it is added to.
        config: An instance of the plugin's configuration class.
        attached: How each observation of the probe's plan was attached, or that it was not.
        began: The moment from which on programs count, ns of CLOCK_MONOTONIC as they read it. What comes after it is
            told by `taken` of the columns; an aggregator looks at no clock.

    Returns:
        An object that is given every batch of columns and asked for the figures at each interval and at the end.
    """


@hookspec(firstresult=True)
def probekit_export(exporter: str, config: Any) -> Exporter:  # type: ignore[empty-body]
    """An exporter.

    Args:
        exporter: The exporter's name.
        config: An instance of its configuration class.

    Returns:
        A context manager that is given every snapshot of every probe of the run.
    """
