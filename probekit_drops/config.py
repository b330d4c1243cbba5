"""The `[probe.drops]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, option


@frozen
class DropsConfig:
    """Packet drops."""

    mode: Literal["aggregate", "events"] = option(
        "aggregate", help="aggregate counts in the kernel; events also streams each drop"
    )
    protocols: tuple[Literal["tcp", "udp", "icmp", "other"], ...] = option(
        ("tcp", "udp", "icmp", "other"), help="protocols whose drops to count",
        allowed="at least one", check=lambda v: len(v) > 0,
    )  # fmt: skip
    port: int = option(
        0, help="count only drops of packets from or to this port; 0 counts all", allowed="from 0 to 65535",
        check=lambda v: 0 <= v <= 65535,
    )  # fmt: skip
    netns: Literal["all", "own"] = option(
        "all", help="network namespaces whose drops to count: all, or only the one that probekit runs in"
    )
    layers: tuple[Literal["xdp", "device", "tc", "netfilter", "socket"], ...] = option(
        (), help="layers at which to count passing packets, to see between which two they get lost"
    )
    devices: tuple[str, ...] = option(
        (), help="devices of this network namespace for layers: xdp and tc attach to them, the others only show them",
        allowed="each named once", check=lambda v: len(set(v)) == len(v) and all(v), example='["eth0"]',
    )  # fmt: skip
    max_flows: int = option(
        10240, help="flows to keep in the kernel; drops of further flows are counted by reason and function",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    stacks: bool = option(False, help='with mode = "events": add the kernel stack to each drop')
    rate: int = option(
        1000, help='with mode = "events": most drops to stream per second; the rest are counted and held back',
        allowed="from 1 to 1000000", check=lambda v: 1 <= v <= 1_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(1 << 20), help="with mode = \"events\": size of the ring buffer",
        allowed='a power of two from "4KiB" to "1GiB"', check=lambda v: 4096 <= v <= 1 << 30 and v & (v - 1) == 0,
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        """What two options together do not allow."""
        needing = [layer for layer in self.layers if layer in ("xdp", "tc")]
        if needing and not self.devices:
            raise ValueError(f'layers {" and ".join(needing)} need devices = ["NAME", ...]')
        if self.devices and not self.layers:
            raise ValueError("devices are for layers: name layers, or leave devices out")
        if self.stacks and self.mode != "events":
            raise ValueError('stacks = true needs mode = "events"')
