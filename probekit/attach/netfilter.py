"""Programs at netfilter hooks: BPF_PROG_TYPE_NETFILTER (6.4)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from ..machine import bpf
from ..model import AttachPoint
from .common import NETWORK

_FAMILIES = {2: "ip", 10: "ip6"}  # NFPROTO_IPV4, NFPROTO_IPV6
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
FIRST, LAST = -(2**31) + 1, 2**31 - 2  # NF_IP_PRI_FIRST and NF_IP_PRI_LAST themselves are not allowed


@frozen
class Netfilter(AttachPoint):
    """Hooks of this network namespace.

    Attributes:
        priority: Where among the functions there; `FIRST` and `LAST` are as far to the outside as may be.
        program: The C function.
        families: NFPROTO_IPV4, NFPROTO_IPV6.
        hooks: `enum nf_inet_hooks`.
    """

    way: ClassVar[str] = "netfilter"
    program_type: ClassVar[int] = 32
    attach_type: ClassVar[int] = 45
    needs: ClassVar[tuple[str, ...]] = NETWORK
    passes: ClassVar[int] = 1  # NF_ACCEPT

    priority: int
    program: str
    families: tuple[int, ...] = tuple(_FAMILIES)
    hooks: tuple[int, ...] = tuple(range(len(_HOOKS)))

    @property
    def target(self) -> str:
        """Families, hooks and place."""
        families = ", ".join(_FAMILIES.get(family, f"family {family}") for family in self.families)
        hooks = "all hooks" if len(self.hooks) == len(_HOOKS) else ", ".join(_HOOKS[hook] for hook in self.hooks)
        place = {FIRST: "first", LAST: "last"}.get(self.priority, f"priority {self.priority}")
        return f"{families}, {hooks}, {place}"

    def link(self, program: int) -> Sequence[int]:
        """Attaches it to each hook of each family."""
        links: list[int] = []
        try:
            for family in self.families:
                for hook in self.hooks:
                    more = struct.pack("=IIiI", family, hook, self.priority, 0)
                    links.append(bpf.create_link(program, 0, self.attach_type, more=more))
        except BaseException:
            for link in links:
                os.close(link)
            raise
        return links
