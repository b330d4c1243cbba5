"""What the connection tracker wants of the kernel."""

from __future__ import annotations

from pathlib import Path

from probekit import ENDED, AttachPlan, AttachPoint, InputError, KernelFacts, Observation
from probekit.attach import Fentry, Iterator, Kprobe, Tracepoint
from probekit.drain import Hash, PerCpuArray, Ring
from probekit.host import bpf_folder, number_of

from .config import ConntrackConfig
from .values import Closer, End, Origin, Side

_CLOSED_WAKE = 64  # records of one CPU between wake-ups of the reader
_LATE = 1 << 14  # bytes
_HANDSHAKES = 4096
_NAMED = Path("/run/netns")
_WITH_ACCEPT_EXIT = ("x86_64", "aarch64")  # machines that bpf/conntrack.bpf.c knows the system calls of


def plan(config: ConntrackConfig, kernel: KernelFacts) -> AttachPlan:
    """States alone say when a connection attempt begins and ends, on every kernel: connects need no probe of their own.

    Raises:
        InputError: There is no network namespace of that name.
    """
    defines = {
        "MAX_CONNECTIONS": config.max_connections,
        "CLOSED_PAGES": kernel.pages(config.buffer),
        "CLOSED_WAKE": _CLOSED_WAKE,
        "LATE_PAGES": kernel.pages(_LATE),
        "HANDSHAKES": _HANDSHAKES,
    }
    if _kprobes(config, kernel):
        defines["KPROBES"] = 1
    return AttachPlan(
        source=bpf_folder() / "conntrack.bpf.c",
        observations=_observations(config, kernel),
        sources=(
            Ring("closed"),
            Ring("late"),
            Hash("connections"),
            PerCpuArray("counters"),
        ),
        defines=defines,
        enums=(Side, Origin, Closer, End),
        parameters={"netns": namespace_number(config.netns), ENDED: 0},
    )


def namespace_number(name: str) -> int:
    """The number of the network namespace that an option names; 0 for all.

    Raises:
        InputError: There is none.
    """
    if not name:
        return 0
    path = namespace_path(name)
    try:
        return number_of(path)
    except OSError as error:
        raise InputError(
            f"probe.conntrack.netns: {path}: {error.strerror}", "`ip netns list` shows those that have a name"
        ) from None


def namespace_path(name: str) -> Path:
    """The file of a network namespace, given by its name or a path."""
    return Path(name) if "/" in name else _NAMED / name


def _kprobes(config: ConntrackConfig, kernel: KernelFacts) -> bool:
    """Whether programs for kprobes are worth compiling."""
    return kernel.kprobes or config.attach == "kprobe"


def _observations(config: ConntrackConfig, kernel: KernelFacts) -> tuple[Observation, ...]:
    def tracepoint(name: str, target: str, program: str, without: str = "") -> Observation:
        points = (Tracepoint(target, program),)
        return Observation(name, points, needed=not without, without=without)

    observations = [
        tracepoint("state", "inet_sock_set_state", "state_btf"),
        tracepoint("death", "tcp_destroy_sock", "destroy_btf"),
        tracepoint("reset sent", "tcp_send_reset", "reset_sent_btf"),
        tracepoint("reset received", "tcp_receive_reset", "reset_received_btf"),
        tracepoint(
            "repeated SYN-ACK", "tcp_retransmit_synack", "synack_again_btf",
            without="a server's handshake times where a SYN-ACK was sent again",
        ),
    ]  # fmt: skip
    if config.accept:
        observations.append(_accept(config, kernel))
    observations += [
        Observation(
            "already open", (Iterator("tcp", "each_socket", per_namespace=True),), needed=False,
            without="connections that are open already and stay so; figures of open ones between two of their states",
        ),
        Observation(
            "owners of those", (Iterator("task_file", "each_file"),), needed=False,
            without="processes of connections that were open already",
        ),
    ]  # fmt: skip
    return tuple(observations)


def _accept(config: ConntrackConfig, kernel: KernelFacts) -> Observation:
    points: list[AttachPoint] = [Fentry("security_sock_graft", "graft_btf")]
    if _kprobes(config, kernel):
        points.append(Kprobe("security_sock_graft", "graft_kprobe"))
    if kernel.machine in _WITH_ACCEPT_EXIT:
        points.append(Tracepoint("sys_exit", "system_call_btf"))
    return Observation(
        "accept",
        tuple(point for point in points if config.attach in ("auto", point.way)),
        needed=False,
        without="what connections wait to be accepted; the owner of a server's connection until it closes it",
    )
