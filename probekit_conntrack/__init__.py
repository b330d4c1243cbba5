"""The life of TCP connections: birth, states, death, owner, traffic; pools of connections; Netfilter's table beside it.

What needs NumPy is imported by the hooks that are called after the programs were attached.
"""

from __future__ import annotations

from probekit import Aggregator, AttachPlan, Decoder, KernelFacts, LiveMap, Source, hook
from probekit.host import Machine

from .attach import plan
from .config import ConntrackConfig


@hook
def probekit_config() -> type:
    """The `[probe.conntrack]` table."""
    return ConntrackConfig


@hook
def probekit_attach(config: ConntrackConfig, kernel: KernelFacts) -> AttachPlan:
    """States, resets, accepts, and what is open already."""
    return plan(config, kernel)


@hook
def probekit_decode(source: Source, map: LiveMap) -> Decoder:  # noqa: A002
    """A decoder for each map."""
    from .decode import DECODERS

    return DECODERS[source.name]


@hook
def probekit_aggregate(config: ConntrackConfig, began: int, machine: Machine) -> Aggregator:
    """Connections, services, findings and losses."""
    from .aggregate import ConntrackAggregator

    return ConntrackAggregator(config, began, machine)
