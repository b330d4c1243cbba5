"""The enums of the latency probe. The C source gets them as macros: SIDE_CLIENT."""

from __future__ import annotations

import enum


class Side(enum.IntEnum):
    """Which end of the connection a socket is."""

    CLIENT = 0
    SERVER = 1


class Origin(enum.IntEnum):
    """Whether the connection's beginning was seen."""

    BIRTH = 1
    UNSEEN = 2


class End(enum.IntEnum):
    """What became of a record."""

    OPEN = 0
    CLOSED = 1
    EVICTED = 2


class Measure(enum.IntEnum):
    """What is known when a response begins: the rows of the map `histograms`. The last is there with `pickup` only."""

    FIRST_BYTE = 0
    WIRE = 1
    WAKEUP = 2
    SERVICE = 3
    PICKUP = 4


class Longer(enum.IntEnum):
    """Of exchanges whose responses had several parts, when they are over: the rows of the map `longer`."""

    FIRST_BYTE = 0
    REQUEST = 1
    TRANSFER = 2
    REPLY = 3


class Figure(str, enum.Enum):
    """The distributions, and what each is."""

    REQUEST = "request"
    FIRST_BYTE = "first_byte"
    WIRE = "wire"
    WAKEUP = "wakeup"
    TRANSFER = "transfer"
    SERVICE = "service"
    REPLY = "reply"
    PICKUP = "pickup"


LONGEST = 2**36 - 1
"""The longest time, in nanoseconds, that histograms hold."""
MOMENT = 2**48 - 1
"""What the kernel keeps of a moment, ns, when a response begins."""
HANDED = 2**63
"""In the place of a begin: the response has begun, and the lower bits are how long that took."""
GOES_ON = 2**62
"""More of it has come since."""
OLDER = 4
"""What is in the place of a begin, up to this, is of an exchange that is not measured."""
REST_BITS = 28
"""Bits of a word of the kernel's that has a shortest or longest time, of 36 bits, above them."""
HIGH_BITS = 16
"""Bits of the word that has the number of exchanges above them, and bits of bytes above the lower 32."""
UNCOUNTED = 2**REST_BITS - 1
"""In place of how many exchanges were not split: so many, or more."""
UNSEEN = 2**64 - 1
"""In place of a wait whose beginning was not seen."""
