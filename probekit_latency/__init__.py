"""TCP latency: request latency of client sockets, service time of server sockets.

What needs NumPy is imported by the hooks that are called after the programs were attached.
"""

from __future__ import annotations

from probekit import Aggregator, AttachPlan, Decoder, KernelFacts, LiveMap, Source, hook
from probekit.host import Machine

from .attach import plan
from .config import LatencyConfig


@hook
def probekit_config() -> type:
    """The `[probe.latency]` table."""
    return LatencyConfig


@hook
def probekit_attach(config: LatencyConfig, kernel: KernelFacts) -> AttachPlan:
    """Sends, receives, arrivals and the connection's states."""
    return plan(config, kernel)


@hook
def probekit_decode(source: Source, map: LiveMap) -> Decoder:  # noqa: A002
    """A decoder for each map."""
    from .decode import DECODERS

    return DECODERS[source.name]


@hook
def probekit_aggregate(config: LatencyConfig, began: int, machine: Machine) -> Aggregator:
    """Connections, distributions and losses."""
    from .aggregate import LatencyAggregator

    return LatencyAggregator(config, began, machine)
