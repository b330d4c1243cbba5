"""What is wrong, in words. Each finding has its rule here, and in docs/latency.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from probekit import Array
from probekit.decode import endpoint_text, named

from .rows import parts
from .values import Side

ENOUGH = 20
"""Exchanges of a service, below which nothing is said about all of them."""
GAP_SHARE = 0.05
GAPS = 3
AT_ONCE_NS = 5e6
"""What a server takes at most to send a response that it has whole."""
RESENT = 3
RESENT_SHARE = 0.01
LATE_NS = 5e6
LATE_SHARE = 0.5
ROOM_US = 20_000
SIBLINGS = 3
SLOWER = 3.0
SLOWER_NS = 1e6


@frozen
class Finding:
    """Something to look at.

    Attributes:
        finding: Which rule found it.
        service: Its address: a client's peer, a server's own port.
        process: Command of the processes on this machine.
        text: The evidence.
        next: What to do.
    """

    finding: str
    service: str
    process: str
    text: str
    next: str


class Services:
    """Connections by service: of a client those to one address and port, of a server those to one of its ports.

    Attributes:
        rows: Connections.
        place: Of each row its service.
        count: Services.
        side: Of each service.

    Args:
        rows: Of dtype `rows.ROW`.
        owners: Command names by process id.
        first_bytes: The main figures are of first bytes.
    """

    def __init__(self, rows: Array, owners: Mapping[int, str], first_bytes: bool) -> None:
        self.rows = rows
        client = rows["side"] == Side.CLIENT
        keys = np.zeros(len(rows), [("address", "u1", 16), ("port", "u2"), ("side", "u1"), ("pid", "u4")])
        keys["side"], keys["pid"] = rows["side"], rows["pid"]
        for end, mine in (("remote", client), ("local", ~client)):
            keys["port"][mine] = rows["who"][f"{end}_port"][mine]
            keys["address"][mine] = rows["who"][end][mine]
        _, first, place = np.unique(keys.view(f"V{keys.itemsize}"), return_index=True, return_inverse=True)
        self.place: Array = place.ravel()
        self.count = len(first)
        self.keys: Array = keys[first]
        self.side: Array = self.keys["side"]
        self._owners = owners
        self._parts = parts(rows, first_bytes)

    def sum(self, values: Array) -> Array:
        """Of each service the sum of its rows' values."""
        return np.bincount(self.place, np.nan_to_num(values.astype(np.float64)), self.count)

    def part(self, name: str) -> Array:
        """Of each service what a part of an exchange takes on average, ns; 0 where there is none."""
        events = self.sum(self.rows["events"])
        total: Array = self.sum(self._parts[name] * self.rows["events"])
        return np.divide(total, events, out=np.zeros(self.count), where=events > 0)

    def most(self, values: Array) -> Array:
        """Of each service the largest of its rows' values."""
        largest = np.zeros(self.count)
        np.maximum.at(largest, self.place, values.astype(np.float64))
        return largest

    def finding(self, place: int, name: str, evidence: str, then: str) -> Finding:
        """One of a service."""
        key = self.keys[place]
        service = str(endpoint_text(key["address"][None], key["port"][None])[0])
        process = str(named(key["pid"][None], self._owners)[0])
        return Finding(name, service, process, evidence, then)


def findings(rows: Array, owners: Mapping[int, str], first_bytes: bool, jiffy_us: float) -> list[Finding]:
    """All of them.

    Args:
        rows: Connections, of dtype `rows.ROW`.
        owners: Command names by process id.
        first_bytes: The main figures are of first bytes.
        jiffy_us: A tick of the kernel, microseconds.
    """
    if not len(rows):
        return []
    services = Services(rows, owners, first_bytes)
    return [
        *_held_back(services), *_sent_again(services), *_no_room(services, jiffy_us), *_comes_late(services),
        *_waits_for_pickup(services), *_slower_than_siblings(services),
    ]  # fmt: skip


def _held_back(services: Services) -> Iterator[Finding]:
    """A part of responses comes 35 to 250 ms after the one before, in at least three and one in twenty of them.

    Not where the server is on this machine, too, and takes as long to send them: then it is the server that pauses.
    """
    rows = services.rows
    client = services.side == Side.CLIENT
    gaps, events = services.sum(rows["gaps"]), services.sum(rows["events"])
    reply, local = _replies(services)
    lasts = services.part("stall") + services.part("transfer")
    paused = client & (events >= ENOUGH) & (gaps >= GAPS) & (gaps >= GAP_SHARE * events)
    for place in np.flatnonzero(paused & ~(local & (reply > lasts / 2))).tolist():
        sent = f"; the server had sent all of it after {reply[place] / 1e6:.3g} ms" if local[place] else ""
        yield services.finding(
            place, "Nagle meets delayed acknowledgement",
            f"{int(gaps[place]):,} pauses of 35 to 250 ms within {int(events[place]):,} responses, which took "
            f"{lasts[place] / 1e6:.3g} ms from their first byte to their last (mean){sent}",
            "set TCP_NODELAY at the server, or send headers and body at once",
        )  # fmt: skip


def _replies(services: Services) -> tuple[Array, Array]:
    """Of each client's service what its server takes to send responses, ns, and whether that one is on this machine."""
    rows = services.rows
    server = rows[(rows["side"] == Side.SERVER) & (rows["id"] != 0)]
    if not len(server):
        return np.zeros(services.count), np.zeros(services.count, bool)
    server = server[np.argsort(server["id"], kind="stable")]
    at = np.minimum(np.searchsorted(server["id"], rows["id"]), len(server) - 1)
    there = (server["id"][at] == rows["id"]) & (rows["side"] == Side.CLIENT)
    reply, count = (services.sum(np.where(there, server[name][at], 0)) for name in ("transferred", "events"))
    return np.divide(reply, count, out=np.zeros(services.count), where=count > 0), count > 0


def _sent_again(services: Services) -> Iterator[Finding]:
    """Three segments or more, and one for a hundred exchanges, were sent again."""
    again, events = services.sum(services.rows["retransmits"]), services.sum(services.rows["events"])
    longest = services.most(services.rows["max"])
    for place in np.flatnonzero((again >= RESENT) & (again >= RESENT_SHARE * events) & (events > 0)).tolist():
        what = "requests" if services.side[place] == Side.CLIENT else "responses"
        yield services.finding(
            place, "retransmission within requests",
            f"{int(again[place]):,} segments of {what} were sent again in {int(events[place]):,} exchanges; the "
            f"longest took {longest[place] / 1e6:.3g} ms",
            "probekit run drops, at both ends and between them",
        )  # fmt: skip


def _no_room(services: Services, jiffy_us: float) -> Iterator[Finding]:
    """A server's peers had no room for responses, for 20 ms at least and a tenth of the time that sending took."""
    server = services.side == Side.SERVER
    waited = services.sum(services.rows["no_room"] * jiffy_us)
    replies = services.sum(services.rows["transferred"]) / 1e3
    for place in np.flatnonzero(server & (waited >= ROOM_US) & (waited * 10 >= replies)).tolist():
        yield services.finding(
            place, "the reader comes late",
            f"the server waited {waited[place] / 1e3:.3g} ms for clients that had no room for more (zero window)",
            "look at the clients: they read slower than the server sends",
        )  # fmt: skip


def _comes_late(services: Services) -> Iterator[Finding]:
    """Clients take 5 ms or more, and half of the time to the first byte, to read what has come."""
    client, events = services.side == Side.CLIENT, services.sum(services.rows["events"])
    wakeup = services.part("wakeup")
    first = services.part("network") + services.part("peer") + wakeup
    late = client & (events >= ENOUGH) & (wakeup >= LATE_NS) & (wakeup >= LATE_SHARE * first)
    for place in np.flatnonzero(late).tolist():
        yield services.finding(
            place, "the process comes late to its data",
            f"responses lay at the socket for {wakeup[place] / 1e6:.3g} ms (mean) of {first[place] / 1e6:.3g} ms "
            f"before the process read them",
            "see whether it lacks CPU (its cgroup's cpu.stat, the machine's load) or does something else meanwhile",
        )  # fmt: skip


def _waits_for_pickup(services: Services) -> Iterator[Finding]:
    """Requests lie at a server's socket for 5 ms or more, and longer than their service takes. With `pickup` only."""
    events, pickup, service = services.sum(services.rows["events"]), services.part("pickup"), services.part("service")
    for place in np.flatnonzero((events >= ENOUGH) & (pickup >= LATE_NS) & (pickup > service)).tolist():
        yield services.finding(
            place, "requests wait for the server's process",
            f"{pickup[place] / 1e6:.3g} ms (mean) at the socket before a service of {service[place] / 1e6:.3g} ms",
            "more workers, or less work in each",
        )  # fmt: skip


def _slower_than_siblings(services: Services) -> Iterator[Finding]:
    """One of at least three peers of one process and port takes three times what half of the others take, or more."""
    events = services.sum(services.rows["events"])
    total: Array = services.sum(services.rows["sum"])
    mean = np.divide(total, events, out=np.zeros(services.count), where=events > 0)
    usable = (services.side == Side.CLIENT) & (events >= ENOUGH)
    siblings: dict[tuple[Any, ...], list[int]] = {}
    for place in np.flatnonzero(usable).tolist():
        key = services.keys[place]
        siblings.setdefault((int(key["pid"]), int(key["port"])), []).append(place)
    for places in siblings.values():
        for place in places if len(places) >= SIBLINGS else ():
            others = float(np.median([mean[other] for other in places if other != place]))
            if mean[place] >= SLOWER * others and mean[place] - others >= SLOWER_NS:
                yield services.finding(
                    place, "slower than its siblings",
                    f"requests take {mean[place] / 1e6:.3g} ms (mean), {others / 1e6:.3g} ms to the {len(places) - 1} "
                    f"other peers at port {int(services.keys[place]['port'])} (median)",
                    "look at this peer and the way to it",
                )  # fmt: skip
