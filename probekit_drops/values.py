"""The enums of the drop probe. The C source gets them as macros: POINT_XDP_PASS."""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """Protocols that drops may be restricted to: bits of the parameter protocols."""

    TCP = 0
    UDP = 1
    ICMP = 2
    OTHER = 3


class Point(enum.IntEnum):
    """Where the funnel counts, in the order in which a packet comes by.

    XDP_* are the verdicts of a device's XDP program, in the order of `enum xdp_action`; what enters and leaves hooks is
    in the order of `enum nf_inet_hooks`.
    """

    XDP_ABORTED = 0
    XDP_DROP = 1
    XDP_PASS = 2
    XDP_TX = 3
    XDP_REDIRECT = 4
    RECEIVED = 5
    TC_INGRESS = 6
    PREROUTING_ENTER = 7
    PREROUTING_LEAVE = 8
    INPUT_ENTER = 9
    INPUT_LEAVE = 10
    FORWARD_ENTER = 11
    FORWARD_LEAVE = 12
    OUTPUT_ENTER = 13
    OUTPUT_LEAVE = 14
    POSTROUTING_ENTER = 15
    POSTROUTING_LEAVE = 16
    SOCKET = 17
    TC_EGRESS = 18
    TRANSMITTED = 19


NO_REASON = 2**32 - 1
"""In place of a reason where the kernel gives none."""

NO_HOOK = 0xFF
"""In place of a netfilter hook where something else dropped."""
