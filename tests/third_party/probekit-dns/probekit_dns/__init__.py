"""DNS latency over UDP: configuration and hooks."""

from pathlib import Path

from attrs import frozen
from probekit import Aggregator, AttachPlan, Decoder, Observation, Source, hook, option
from probekit.attach import Tracepoint
from probekit.drain import PerCpuArray, Ring


@frozen
class DnsConfig:
    """DNS latency over UDP."""

    port: int = option(53, help="the servers' port", allowed="from 1 to 65535", check=lambda v: 1 <= v <= 65535)
    queries: int = option(4096, help="queries that may wait at once", allowed="at least 1", check=lambda v: v >= 1)


@hook
def probekit_config() -> type:
    return DnsConfig


@hook
def probekit_attach(config: DnsConfig) -> AttachPlan:
    return AttachPlan(
        source=Path(__file__).with_name("dns.bpf.c"),
        observations=(
            Observation("query", (Tracepoint("net_dev_queue", "query"),)),
            Observation("answer", (Tracepoint("netif_receive_skb", "answer"),)),
        ),
        sources=(Ring("answers"), PerCpuArray("counters")),
        defines={"PORT": config.port, "QUERIES": config.queries},
    )


@hook
def probekit_decode(source: Source) -> Decoder:
    from probekit.decode import fields, summed

    return summed if isinstance(source, PerCpuArray) else fields


@hook
def probekit_aggregate() -> Aggregator:
    from .aggregate import DnsAggregator

    return DnsAggregator()
