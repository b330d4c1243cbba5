"""What the latency probe wants of the kernel."""

from __future__ import annotations

from probekit import AttachPlan, AttachPoint, KernelFacts, Observation
from probekit.attach import Fentry, Kprobe, Tracepoint
from probekit.drain import ArrayMap, Hash, PerCpuArray, Ring, Slots
from probekit.host import bpf_folder

from .config import LatencyConfig
from .values import HIGH_BITS, REST_BITS, End, Longer, Measure, Origin, Side

_WAYS = 8  # slots in a set: their tags are a cache line, and their arrivals another one
_LOCKS = 256
_CLOSED = 1 << 16  # bytes
_CLOSED_WAKE = 16  # records of one CPU between wake-ups of the reader
_EVENT_WAKE = 256
_SLOW = 1 << 18  # bytes of a ring buffer that has slow exchanges alone
_OWNERS = 256
_AWAY = 16384  # sockets that were evicted and are remembered, where there are fewer slots


def plan(config: LatencyConfig, kernel: KernelFacts) -> AttachPlan:
    """Alternatives are cheapest first: fentry and BTF tracepoints may follow pointers, a kprobe copies every field.

    The tracepoint `sock_send_length`, which kernels from 6.3 on have and older ones than `tcp_sendmsg_locked`'s too, is
    not used: it fires when the send returns, on loopback after the request has arrived.
    """
    # 1/48 more slots than connections: two sets to choose from fill up evenly, not perfectly
    sets = -(-config.max_connections * 49 // (48 * _WAYS))
    defines = {
        "MEASURES": len(Measure) if config.pickup else Measure.PICKUP,
        "LONGERS": len(Longer),
        "SIDES": len(Side),
        "WAYS": _WAYS,
        "LOCKS": _LOCKS,
        "PICKUP": int(config.pickup),
        "SETS": sets,
        "SAMPLE": min(round(config.sample * 2**32), 2**32 - 1),
        "OUTLIER_NS": round(config.outlier * 1e9),
        "FIRST_BYTES": int(config.main == "first_byte"),
        "OWNERS": _OWNERS,
        "AWAY": _away_rows(sets) * _WAYS,
        "REST_BITS": REST_BITS,
        "HIGH_BITS": HIGH_BITS,
        "COUNTED": int(config.mode == "aggregate"),
        "CLOSED_PAGES": kernel.pages(_CLOSED),
        "CLOSED_WAKE": _CLOSED_WAKE,
    }
    sources = [
        Ring("closed"),
        Slots("connections", live="tag"),
        PerCpuArray("counters"),
        PerCpuArray("undelivered"),
        Hash("owners"),
    ]
    events = config.mode == "events"
    if streams(config):
        buffer = config.buffer if events else min(config.buffer, _SLOW)
        defines["EVENT_PAGES"] = kernel.pages(buffer)
        defines["EVENT_WAKE"] = min(_EVENT_WAKE, buffer // 512) if events else 1  # a few times a buffer
        defines["SLOW_NS"] = slow_ns(config)
        defines["SLOW_SHARE"] = 0 if events else round(config.slow_share * 2**24)
        defines["SLOW_RATE"] = 0 if events else config.slow_rate
        sources.insert(0, Ring("events"))
    if not events:  # what is taken off the others is read before them
        sources += [ArrayMap("longer"), PerCpuArray("histograms")]
    if _kprobes(config, kernel):
        defines["KPROBES"] = 1
    return AttachPlan(
        source=bpf_folder() / "latency.bpf.c",
        observations=_observations(config, kernel),
        sources=tuple(sources),
        defines=defines,
        enums=(Side, Origin, End, Measure, Longer),
    )


def streams(config: LatencyConfig) -> bool:
    """Whether there is a stream of exchanges, all or the slow ones."""
    return config.mode == "events" or config.slow > 0 or config.slow_share > 0


def slow_ns(config: LatencyConfig) -> int:
    """What exchanges have to take, at least, to be streamed; with mode = "events" all are."""
    return round(config.slow * 1e9) if config.mode == "aggregate" else 0


def _away_rows(sets: int) -> int:
    """Rows of sockets that are remembered, in each set: a power of two."""
    return 1 << (max(1, _AWAY // (sets * _WAYS)) - 1).bit_length()


def _kprobes(config: LatencyConfig, kernel: KernelFacts) -> bool:
    """Whether programs for kprobes are worth compiling."""
    return kernel.kprobes or config.attach == "kprobe"


def _observations(config: LatencyConfig, kernel: KernelFacts) -> tuple[Observation, ...]:
    def ways(function: str, program: str, *tracepoints: tuple[str, str]) -> tuple[AttachPoint, ...]:
        points: list[AttachPoint] = [
            Fentry(function, f"{program}_btf"),
            *(Tracepoint(name, called) for name, called in tracepoints),
        ]
        if _kprobes(config, kernel):
            points.append(Kprobe(function, f"{program}_kprobe"))
        return tuple(p for p in points if config.attach in ("auto", p.way))

    observations = [
        Observation("send", ways("tcp_sendmsg_locked", "message", ("tcp_sendmsg_locked", "send_btf"))),
        Observation("receive", ways("tcp_rcv_space_adjust", "receive", ("tcp_rcv_space_adjust", "receive_btf"))),
        Observation(
            "arrival",
            ways("sock_def_readable", "readable", ("sk_data_ready", "readable_btf"), ("tcp_probe", "packet_btf")),
        ),
        Observation("state", (Tracepoint("inet_sock_set_state", "state_btf"),)),
    ]
    # before 6.5, sendfile's own way; compilers inline tcp_sendpage_locked into its caller, and not what it calls
    if kernel.has_name("do_tcp_sendpages"):
        points = tuple(p for p in ways("do_tcp_sendpages", "send") if not isinstance(p, Tracepoint))
        observations.append(Observation("sendfile", points, needed=False, without="what sendfile and splice send"))
    return tuple(observations)
