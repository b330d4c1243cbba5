"""How long processes live: configuration and hooks. What needs NumPy is imported when the programs are attached."""

from pathlib import Path

from attrs import frozen
from probekit import Aggregator, AttachPlan, Decoder, Observation, Source, hook, option
from probekit.attach import Tracepoint
from probekit.drain import Hash, PerCpuArray


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
        observations=(Observation("exit", (Tracepoint("sched_process_exit", "process_exit"),)),),
        sources=(Hash("commands"), PerCpuArray("ages"), PerCpuArray("counters")),
        defines={"COMMANDS": config.commands},
    )


@hook
def probekit_decode(source: Source) -> Decoder:
    from probekit.decode import fields, summed

    return summed if isinstance(source, PerCpuArray) else fields


@hook
def probekit_aggregate() -> Aggregator:
    from .aggregate import YourprobeAggregator

    return YourprobeAggregator()
