"""What the drop probe wants of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from probekit import AttachPlan, AttachPoint, KernelFacts, Observation
from probekit.attach import (
    FIRST,
    LAST,
    CgroupIngress,
    Fexit,
    Netfilter,
    TcxEgress,
    TcxIngress,
    Tracepoint,
    Xdp,
    XdpExit,
    XdpRuns,
)
from probekit.drain import Hash, PerCpuArray, Ring
from probekit.host import bpf_folder

from .config import DropsConfig
from .values import Kind, Point

_PLACES = 4096
_STACK = 32  # frames
_BUILT_IN = {"nf_tables": "NFT_BUILT_IN", "x_tables": "XT_BUILT_IN"}
_ONLY_IN = {"nf_tables": "nft_base_chain", "x_tables": "xt_table_info"}  # elsewhere others may be named, if not known
_REASONS = {
    "NETFILTER_REASON": "NETFILTER_DROP",
    "OLD_SEQUENCE_REASON": "TCP_OLD_SEQUENCE",
    "INVALID_SEQUENCE_REASON": "TCP_INVALID_SEQUENCE",
}
_HOOKS = {  # lists of functions at hooks, which depend on how the kernel was configured; egress came with 5.16
    "HOOKS_ARP": "hooks_arp",
    "HOOKS_BRIDGE": "hooks_bridge",
    "HOOKS_INGRESS": "nf_hooks_ingress",
    "HOOKS_EGRESS": "nf_hooks_egress",
}
_OFFSETS = {  # macro: module, struct, member
    "NFT_CHAIN_TABLE": ("nf_tables", "nft_chain", "table"),
    "NFT_CHAIN_NAME": ("nf_tables", "nft_chain", "name"),
    "NFT_TABLE_NAME": ("nf_tables", "nft_table", "name"),
    "XT_TABLE_NAME": ("x_tables", "xt_table", "name"),
}


def plan(config: DropsConfig, kernel: KernelFacts) -> AttachPlan:
    """Drops from `kfree_skb`, and the layers that were asked for."""
    defines = {
        "FLOWS": config.max_flows,
        "PLACES": _PLACES,
        **({"FILTERED": 1} if _is_filtered(config) else {}),
        **{f"LAYER_{layer.upper()}": 1 for layer in config.layers},
        **_facts(kernel),
    }
    sources = [
        Hash("flows"),
        Hash("places"),
        Hash("hooks"),
        Hash("layers"),
        PerCpuArray("counters"),
    ]
    if config.mode == "events":
        defines["EVENT_PAGES"] = kernel.pages(config.buffer)
        defines["EVENT_RATE"] = config.rate
        if config.stacks:
            defines["STACK"] = _STACK
        sources.insert(0, Ring("events"))
    return AttachPlan(
        source=bpf_folder() / "drops.bpf.c",
        observations=(_drops(kernel), *_layers(config, kernel)),
        sources=tuple(sources),
        defines=defines,
        enums=(Kind, Point),
        parameters=_filter(config) if _is_filtered(config) else {},
    )


def _is_filtered(config: DropsConfig) -> bool:
    return bool(config.port) or config.netns == "own" or len(set(config.protocols)) < len(Kind)


def _filter(config: DropsConfig) -> dict[str, int]:
    return {
        "netns": Path("/proc/self/ns/net").stat().st_ino if config.netns == "own" else 0,
        "port": config.port,
        "protocols": sum(1 << Kind[name.upper()] for name in set(config.protocols)),
    }


def _facts(kernel: KernelFacts) -> dict[str, int]:
    """What the C source cannot ask itself: which types there are, and what modules say of theirs."""
    facts = {macro: 1 for macro, reason in _REASONS.items() if kernel.has_name(f"SKB_DROP_REASON_{reason}")}
    facts |= {macro: 1 for macro, member in _HOOKS.items() if kernel.has_name(member)}
    built_in = {module for module, only_there in _ONLY_IN.items() if kernel.has_name(only_there)}
    facts |= {macro: 1 for module, macro in _BUILT_IN.items() if module in built_in}
    offsets = {macro: kernel.member_offset(*at) for macro, at in _OFFSETS.items() if at[0] not in built_in}
    return facts | {macro: offset for macro, offset in offsets.items() if offset is not None}


def _drops(kernel: KernelFacts) -> Observation:
    """The tracepoint's arguments grew. Where there are reasons, doing without them is no alternative."""
    programs = ("drop_with_receiver", "drop_with_reason") if kernel.has_name("skb_drop_reason") else ("drop_alone",)
    return Observation("drops", tuple(Tracepoint("kfree_skb", program) for program in programs))


def _layers(config: DropsConfig, kernel: KernelFacts) -> Iterator[Observation]:
    def optional(name: str, *points: AttachPoint) -> Observation:
        return Observation(name, points, needed=False, without="this layer of the funnel")

    if "xdp" in config.layers:
        for device in config.devices:
            yield optional(
                f"xdp {device}",
                XdpExit(device, "xdp_verdict"),
                Xdp(device, "xdp_own"),
                XdpRuns(device),
            )
    if "device" in config.layers:
        yield optional("received", Tracepoint("netif_receive_skb", "received"))
        yield optional("transmitted", Tracepoint("net_dev_start_xmit", "transmitted"))
    if "tc" in config.layers:
        for device in config.devices:
            yield optional(f"tc ingress {device}", TcxIngress(device, "tc_ingress"))
            yield optional(f"tc egress {device}", TcxEgress(device, "tc_egress"))
    if "netfilter" in config.layers:
        if kernel.has_name("bpf_nf_ctx"):
            yield optional("netfilter enter", Netfilter(FIRST, "hook_enter"))
            yield optional("netfilter leave", Netfilter(LAST, "hook_leave"))
        else:
            yield optional("netfilter", Fexit("nf_hook_slow", "hook_run"))
    if "socket" in config.layers:
        yield optional("socket", CgroupIngress("/", "socket_ingress"))
