"""Every hook.

A probe is a module that implements `probekit_config`, `probekit_attach`, `probekit_decode` and `probekit_aggregate`; an
exporter one that implements `probekit_config` and `probekit_export`. The module is named by an entry point of the group
`probekit.probes` or `probekit.exporters`; the entry point's name is the probe's or exporter's.

A hook is called once, while a run is put together, and on that one plugin. It returns an object; what happens for each
batch or snapshot is a plain method call on that object. An implementation may leave out the arguments it does not need.
"""

from __future__ import annotations

from typing import Any

import pluggy

from .kernel import KernelFacts
from .model import Aggregator, Attached, AttachPlan, Decoder, Exporter, LiveMap, Source

PROJECT = "probekit"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def probekit_config(name: str) -> type:  # type: ignore[empty-body]
    """The configuration class: an attrs class whose fields are made by `probekit.option`.

    Args:
        name: The plugin's name.

    Returns:
        The class of the probe's `[probe.NAME]` table or the exporter's `[[export]]` table.
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
def probekit_aggregate(probe: str, config: Any, attached: tuple[Attached, ...]) -> Aggregator:  # type: ignore[empty-body]
    """The keeper of the probe's figures.

    Args:
        probe: The probe's name.
        config: An instance of its configuration class.
        attached: How each observation of the plan was attached, or that it was not.

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
