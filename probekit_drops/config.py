"""The `[probe.drops]` table."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from probekit import Bytes, option


@frozen
class DropsConfig:
    """Packet drops."""

    mode: Literal["aggregate", "events"] = option(
        "aggregate", help="aggregate counts in the kernel; events also streams each drop to the exporters"
    )
    protocols: tuple[Literal["tcp", "udp", "icmp", "other"], ...] = option(
        ("tcp", "udp", "icmp", "other"), help="protocols whose drops are counted",
        allowed="at least one", check=lambda v: len(v) > 0,
    )  # fmt: skip
    port: int = option(
        0, help="only drops of packets from or to this port; 0: all", allowed="from 0 to 65535",
        check=lambda v: 0 <= v <= 65535,
    )  # fmt: skip
    netns: Literal["all", "own"] = option(
        "all", help="network namespaces whose drops are counted: all, or only the one that probekit runs in"
    )
    layers: tuple[Literal["xdp", "device", "tc", "netfilter", "socket"], ...] = option(
        (), help="layers at which packets are counted as they pass, to see between which two they are lost"
    )
    devices: tuple[str, ...] = option(
        (), help="devices of this network namespace for layers: xdp and tc attach to them, others show them only",
        allowed="each named once", check=lambda v: len(set(v)) == len(v) and all(v), example='["eth0"]',
    )  # fmt: skip
    max_flows: int = option(
        10240, help="flows kept in the kernel; drops of further ones are counted by reason and function",
        allowed="from 64 to 1000000", check=lambda v: 64 <= v <= 1_000_000,
    )  # fmt: skip
    stacks: bool = option(False, help='with mode = "events": the kernel\'s stack of each drop')
    rate: int = option(
        1000, help='with mode = "events": at most so many a second; the others are counted, and held back',
        allowed="from 1 to 1000000", check=lambda v: 1 <= v <= 1_000_000,
    )  # fmt: skip
    buffer: Bytes = option(
        Bytes(1 << 20), help="size of the events' ring buffer, used with mode = \"events\"",
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
