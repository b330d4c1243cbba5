"""TCP latency: request latency of client sockets, service time of server sockets."""

from __future__ import annotations

from probekit import AttachPlan, Decoder, LiveMap, Source, hook
from probekit.kernel import KernelFacts

from .aggregate import LatencyAggregator
from .attach import plan
from .config import LatencyConfig
from .decode import DECODERS


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
    return DECODERS[source.map]


@hook
def probekit_aggregate(config: LatencyConfig) -> LatencyAggregator:
    """Connections, distributions and losses."""
    return LatencyAggregator(config)
