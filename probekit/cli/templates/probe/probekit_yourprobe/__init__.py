"""How long processes live: configuration and hooks. What needs NumPy is imported when the programs are attached."""

from pathlib import Path

from attrs import frozen
from probekit import Aggregator, AttachPlan, AttachPoint, Decoder, Observation, Source, SourceKind, Way, hook, option


@frozen
class YourprobeConfig:
    """How long processes live."""

    commands: int = option(1024, help="names that are told apart", allowed="at least 1", check=lambda v: v >= 1)


@hook
def probekit_config() -> type:
    return YourprobeConfig


@hook
def probekit_attach(config: YourprobeConfig) -> AttachPlan:
    return AttachPlan(
        source=Path(__file__).with_name("yourprobe.bpf.c"),
        observations=(Observation("exit", (AttachPoint(Way.TRACEPOINT, "sched_process_exit", "process_exit"),)),),
        sources=(
            Source("commands", SourceKind.HASH),
            *(Source(name, SourceKind.PERCPU) for name in ("ages", "counters")),
        ),
        defines={"COMMANDS": config.commands},
    )


@hook
def probekit_decode(source: Source) -> Decoder:
    from probekit.decode import fields, summed

    return summed if source.kind is SourceKind.PERCPU else fields


@hook
def probekit_aggregate() -> Aggregator:
    from .aggregate import YourprobeAggregator

    return YourprobeAggregator()
