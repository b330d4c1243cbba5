"""Latency by the server's port: an aggregator beside the latency probe's own."""

from attrs import frozen
from probekit import Aggregator, hook, option


@frozen
class PortsConfig:
    """Latency by the server's port."""

    most: int = option(20, help="ports that are listed", allowed="at least 1", check=lambda v: v >= 1)


@hook
def probekit_config() -> type:
    return PortsConfig


@hook
def probekit_aggregate(config: PortsConfig) -> Aggregator:
    from .aggregate import PortsAggregator

    return PortsAggregator(config.most)
