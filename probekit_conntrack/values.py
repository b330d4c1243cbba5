"""The enums of the connection tracker. The C source gets them as macros: END_FIN."""

from __future__ import annotations

import enum


class Side(enum.IntEnum):
    """Which end of the connection a socket is."""

    CLIENT = 0
    SERVER = 1


class Origin(enum.IntEnum):
    """Whether the connection's beginning was seen."""

    BIRTH = 1
    FOUND = 2


class Closer(enum.IntEnum):
    """Who closed first: sent its FIN or reset before it had one of the other."""

    NOBODY = 0
    LOCAL = 1
    REMOTE = 2
    BOTH = 3


class End(enum.IntEnum):
    """How a connection ended."""

    OPEN = 0
    FIN = 1
    RST_SENT = 2
    RST_RECEIVED = 3
    TIMEOUT = 4
    REFUSED = 5
    UNREACHABLE = 6
    ABORTED = 7  # the program gave up before it was established
    FAILED = 8  # no SYN was sent


class State(enum.IntEnum):
    """States of a TCP socket, as the kernel numbers them (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


DWELT = (
    State.SYN_SENT, State.SYN_RECV, State.ESTABLISHED, State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSE_WAIT,
    State.CLOSING, State.LAST_ACK,
)  # fmt: skip
"""States that a connection's socket dwells in, in the order of its life."""

UNKNOWN = 0xFFFFFFFF
"""In place of a number of jiffies."""
