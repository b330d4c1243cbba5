"""Packet drops: where the kernel drops packets and why, and between which layers they are lost.

What needs NumPy is imported by the hooks that are called after the programs were attached.
"""

from __future__ import annotations

from probekit import Aggregator, Attached, AttachPlan, Decoder, KernelFacts, LiveMap, Source, hook
from probekit.host import Machine

from .attach import plan
from .config import DropsConfig


@hook
def probekit_config() -> type:
    """The `[probe.drops]` table."""
    return DropsConfig


@hook
def probekit_attach(config: DropsConfig, kernel: KernelFacts) -> AttachPlan:
    """Freed packets, and the layers that were asked for."""
    return plan(config, kernel)


@hook
def probekit_decode(source: Source, map: LiveMap) -> Decoder:  # noqa: A002
    """A decoder for each map."""
    from .decode import DECODERS

    return DECODERS[source.name]


@hook
def probekit_aggregate(config: DropsConfig, attached: tuple[Attached, ...], machine: Machine) -> Aggregator:
    """Drops by reason and flow, the funnel and losses."""
    from .aggregate import DropsAggregator

    aggregator = DropsAggregator(config, attached, machine)
    aggregator.read_ahead()
    return aggregator
