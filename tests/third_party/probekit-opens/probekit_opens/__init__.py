"""Files that processes open: configuration and hooks."""

from pathlib import Path

from attrs import frozen
from probekit import Aggregator, AttachPlan, Decoder, Observation, Source, hook, option
from probekit.drain import PerCpuArray

from .classic import Classic
from .queue import Queue


@frozen
class OpensConfig:
    """Files that processes open."""

    waiting: int = option(8192, help="files that may wait to be read", allowed="at least 1", check=lambda v: v >= 1)
    most: int = option(100, help="files to list", allowed="at least 1", check=lambda v: v >= 1)


@hook
def probekit_config() -> type:
    return OpensConfig


@hook
def probekit_attach(config: OpensConfig) -> AttachPlan:
    return AttachPlan(
        source=Path(__file__).with_name("opens.bpf.c"),
        observations=(Observation("open", (Classic("syscalls", "sys_enter_openat", "opening"),)),),
        sources=(Queue("opened"), PerCpuArray("counters")),
        defines={"WAITING": config.waiting},
    )


@hook
def probekit_decode(source: Source) -> Decoder:
    from probekit.decode import fields, summed

    return summed if isinstance(source, PerCpuArray) else fields


@hook
def probekit_aggregate(config: OpensConfig) -> Aggregator:
    from .aggregate import OpensAggregator

    return OpensAggregator(config.most)
