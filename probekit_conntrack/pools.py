"""Figures of services: what the connections of one kind have in common."""

from __future__ import annotations

import math

import attrs
import numpy as np
from attrs import frozen

from probekit import Array

from .rows import JIFFY_US, most_requests, services_of
from .values import End, Origin, Side

TIME_WAIT_NS = 60 * 10**9
"""How long the kernel keeps an address in TIME_WAIT (TCP_TIMEWAIT_LEN)."""
SLOTS = 12
_FAILED = (End.TIMEOUT, End.REFUSED, End.UNREACHABLE, End.ABORTED, End.FAILED)


@frozen
class Moment:
    """When a run is looked at, ns of the clock that programs read.

    Attributes:
        began: When it began.
        now: When what is looked at was taken.
    """

    began: int
    now: int

    @property
    def seconds(self) -> float:
        """How long it has been running; not a number before anything was taken."""
        return (self.now - self.began) / 1e9 if self.now > self.began else math.nan


@frozen
class Requests:
    """What another probe knows of the connections' requests.

    Attributes:
        ids: Shape (n,), sorted.
        sides: Shape (n,).
        counts: Shape (n,), requests.
        busy_us: Shape (n,), how long they were under way, together.
    """

    ids: Array
    sides: Array
    counts: Array
    busy_us: Array

    def updated(self, new: Requests) -> Requests:
        """With newer figures, in place of what was known of the same connections and sides."""
        both = [np.concatenate(pair) for pair in zip(attrs.astuple(new), attrs.astuple(self), strict=True)]
        _, first = np.unique(keys_of(both[0], both[1]), return_index=True)
        return Requests(*(values[first] for values in both))

    def kept(self, ids: Array) -> Requests:
        """Those of these connections alone: of others nobody asks any more."""
        if not len(self.ids):  # no other probe counts them
            return self
        wanted = np.isin(self.ids, ids)
        return Requests(*(values[wanted] for values in attrs.astuple(self)))

    def of(self, rows: Array) -> tuple[Array, Array]:
        """Requests of each row, and how long it was busy with them, ns; not a number where they are not known.

        Where both ends opened a connection and are here, both are clients, and whose requests are whose is not known.
        """
        counts, busy = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        if len(self.ids):
            for side in (Side.CLIENT, Side.SERVER):
                theirs = np.flatnonzero(self.sides == side)
                if not len(theirs):
                    continue
                ids = self.ids[theirs]
                places = np.minimum(np.searchsorted(ids, rows["id"]), len(ids) - 1)
                found = (ids[places] == rows["id"]) & (rows["side"] == side) & (rows["id"] != 0)
                distinct, times = np.unique(rows["id"][found], return_counts=True)
                found &= ~np.isin(rows["id"], distinct[times > 1])
                counts[found] = self.counts[theirs][places[found]]
                busy[found] = self.busy_us[theirs][places[found]] * 1000
        return counts, busy


def keys_of(ids: Array, sides: Array) -> Array:
    """What tells one end of a connection from all others.

    Args:
        ids: Shape (n,), of the connections.
        sides: Shape (n,).

    Returns:
        Shape (n,), of the fields `id` and `side`.
    """
    keys = np.zeros(len(ids), [("id", "u8"), ("side", "u1")])
    keys["id"], keys["side"] = ids, sides
    return keys


NO_REQUESTS = Requests(*(np.zeros(0, kind) for kind in ("u8", "u1", "f8", "f8")))


@frozen
class Pools:
    """Rows by service, and figures of each service.

    Attributes:
        rows: Connections, of dtype ROW.
        moment: When they were looked at.
        services: Distinct services, of dtype SERVICE.
        place: Shape (rows,), the service of each row.
        counts: Shape (rows,), requests of each row; not a number where they are not known.
        busy: Shape (rows,), ns that each was busy with them.
        most: Shape (rows,), the most requests that each can have carried.
    """

    rows: Array
    moment: Moment
    services: Array
    place: Array
    counts: Array
    busy: Array
    most: Array

    @classmethod
    def of(cls, rows: Array, moment: Moment, requests: Requests) -> Pools:
        """Of connections, open and closed."""
        services, place = services_of(rows)
        counts, busy = requests.of(rows)
        return cls(rows, moment, services, place, counts, busy, most_requests(rows))

    def number(self, chosen: Array) -> Array:
        """How many of the chosen rows each service has."""
        return np.bincount(self.place[chosen], minlength=len(self.services))

    def sum(self, values: Array, chosen: Array) -> Array:
        """Sum of the chosen rows' values for each service; not a number where none is chosen."""
        total = np.bincount(self.place[chosen], values[chosen], len(self.services))
        sums: Array = np.where(self.number(chosen) > 0, total, np.nan)
        return sums

    @property
    def open(self) -> Array:
        """Rows that have not ended."""
        return np.asarray(self.rows["ended"] == 0)

    @property
    def born(self) -> Array:
        """Rows whose beginning was seen."""
        return np.asarray(self.rows["origin"] == Origin.BIRTH)

    @property
    def failed(self) -> Array:
        """Rows that were never established."""
        return np.asarray(np.isin(self.rows["end"], _FAILED) & (self.rows["established"] == 0) & self.born)

    @property
    def lived(self) -> Array:
        """Rows that were established, if only before the run."""
        return np.asarray((self.rows["established"] > 0) | (~self.born))

    @property
    def start(self) -> Array:
        """Shape (rows,), ns: when each was established, or first seen."""
        return np.where(self.rows["established"] > 0, self.rows["established"], self.rows["began"])

    @property
    def stop(self) -> Array:
        """Shape (rows,), ns: when each ended, or now."""
        return np.where(self.open, np.uint64(self.moment.now), self.rows["ended"])

    @property
    def quiet(self) -> Array:
        """Shape (rows,), ns: when data was last sent or received."""
        idle = (self.rows["idle"] * (JIFFY_US * 1000)).astype(np.int64)
        return np.asarray(np.maximum(self.stop.astype(np.int64) - idle, self.start.astype(np.int64)))

    @property
    def waiting(self) -> Array:
        """Rows in TIME_WAIT, at an end that is this machine's."""
        return np.asarray((self.rows["time_wait"] > 0) & (self.rows["ended"] + TIME_WAIT_NS > self.moment.now))

    def percentile(self, values: Array, chosen: Array, percent: float) -> Array:
        """Of the chosen rows' values for each service, between two ranks as NumPy does it by default."""
        result = np.full(len(self.services), np.nan)
        order = np.lexsort((values[chosen], self.place[chosen]))
        places, ordered = self.place[chosen][order], values[chosen][order]
        there, first, count = np.unique(places, return_index=True, return_counts=True)
        at = (count - 1) * percent / 100
        below = first + np.floor(at).astype(np.int64)
        above = first + np.ceil(at).astype(np.int64)
        result[there] = ordered[below] + (ordered[above] - ordered[below]) * (at - np.floor(at))
        return result

    def concurrency(self) -> tuple[Array, Array]:
        """The most connections that each service had open at once during the run, and their mean."""
        began, now = np.uint64(self.moment.began), np.uint64(self.moment.now)
        chosen = np.flatnonzero(self.lived & (self.stop > began))
        start, stop = np.clip(self.start[chosen], began, now), np.clip(self.stop[chosen], began, now)
        places = np.tile(self.place[chosen], 2)
        steps = np.repeat([1, -1], len(chosen))
        order = np.lexsort((steps, np.concatenate([start, stop]), places))  # an end before a beginning
        level = np.cumsum(steps[order])  # every service comes back to 0
        most = np.zeros(len(self.services), np.int64)
        np.maximum.at(most, places[order], level)
        spans = np.bincount(self.place[chosen], (stop - start).astype(np.float64), len(self.services))
        return most, spans / (self.moment.now - self.moment.began or 1)

    def over_time(self, wanted: Array) -> tuple[Array, Array, Array, Array]:
        """Opened, closed and open connections of services, by slots of the run.

        Args:
            wanted: Places of services.

        Returns:
            The slots' ends in seconds since the run began, and for each three arrays of shape (wanted, slots).
        """
        edges = np.linspace(self.moment.began, self.moment.now, SLOTS + 1)
        opened, closed, open_now = (np.zeros((len(wanted), SLOTS), np.int64) for _ in range(3))
        lived = self.lived
        for line, service in enumerate(wanted.tolist()):
            mine = lived & (self.place == service)
            starts, stops = np.sort(self.start[mine]), np.sort(self.rows["ended"][mine & ~self.open])
            begun = np.searchsorted(starts, edges, side="right")
            over = np.searchsorted(stops, edges, side="right")
            opened[line], closed[line] = np.diff(begun), np.diff(over)
            open_now[line] = (begun - over)[1:]
        return (edges[1:] - self.moment.began) / 1e9, opened, closed, open_now
