"""TCP latency: request latency of client sockets, service time of server sockets.

What needs NumPy is imported by the hooks that are called after the programs were attached.
"""

from __future__ import annotations

from probekit import Aggregator, AttachPlan, Decoder, KernelFacts, Source, hook
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
def probekit_decode(config: LatencyConfig, source: Source) -> Decoder:
    """A decoder for each map."""
    from .decode import decoders

    return decoders(config)[source.name]


@hook
def probekit_aggregate(config: LatencyConfig, began: int, machine: Machine) -> Aggregator:
    """Connections, distributions and losses."""
    from .aggregate import LatencyAggregator

    return LatencyAggregator(config, began, machine)
