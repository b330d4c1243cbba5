"""Ways of attaching programs. Stage 5.

Each is a class: what it takes to load such a program, what is lacking where it does not work, and how it is linked.
"""

from __future__ import annotations

from ..model import BtfName
from .cgroup import CgroupIngress
from .device import TcxEgress, TcxIngress, Xdp, XdpExit, XdpRuns
from .kprobe import Kprobe
from .netfilter import FIRST, LAST, Netfilter
from .tracing import Fentry, Fexit, Iterator, Tracepoint

__all__ = [
    "FIRST", "LAST", "BtfName", "CgroupIngress", "Fentry", "Fexit", "Iterator", "Kprobe", "Netfilter", "TcxEgress",
    "TcxIngress", "Tracepoint", "Xdp", "XdpExit", "XdpRuns",
]  # fmt: skip
