"""Histograms of what exchanges are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve

from probekit import Array, Distribution
from probekit.aggregate import Histogram

from .values import LONGEST, MOMENT, UNSEEN, Figure, Longer, Measure, Side

HELP = {
    Figure.REQUEST: "client sockets: a request enters the send, until the last of its response is handed over",
    Figure.FIRST_BYTE: "part of a request: sent, until the first of its response is handed over",
    Figure.WIRE: "part of a first byte: sent, until data is at the socket (network, peer, network)",
    Figure.WAKEUP: "part of a first byte: data at the socket, until it is handed to the program",
    Figure.TRANSFER: "part of a request: the first of its response is handed over, until the last of it",
    Figure.SERVICE: "server sockets: a request is handed over, until its response enters the send",
    Figure.REPLY: "server sockets, after a service: its response enters the send, until the last of it does",
    Figure.PICKUP: "server sockets, before a service: data at the socket, until it is handed to the program",
}


_REQUEST_PARTS = (Figure.FIRST_BYTE, Figure.WIRE, Figure.WAKEUP, Figure.TRANSFER)


def described(histograms: Mapping[Figure, Histogram], main: Figure, longest_is_exact: bool) -> tuple[Distribution, ...]:
    """Distributions, the main one first. No part is more than the longest of its whole, where that is known exactly."""
    made = {figure: histogram.distribution(figure.value, HELP[figure]) for figure, histogram in histograms.items()}
    longest = made[Figure.REQUEST].max if longest_is_exact else None
    if longest is not None:
        made |= {part: _bounded(made[part], longest) for part in _REQUEST_PARTS if made[part].max is not None}
    return tuple(made[figure] for figure in sorted(made, key=lambda figure: figure is not main))


def _bounded(part: Distribution, longest: float) -> Distribution:
    """A distribution of buckets' middles, of which none may be above a bound."""
    figures = {name: min(getattr(part, name), longest) for name in ("min", "max", "mean")}
    percentiles = {name: min(value, longest) for name, value in part.percentiles.items()}
    return evolve(part, **figures, percentiles=percentiles)


class Distributions:
    """What the kernel counted, or what streamed, together with the exchanges whose responses go on.

    Attributes:
        begun: Counts, shape (measures, buckets), of what is known when a response begins.
        longer: The same of responses in several parts, when they are over.
        over: Nothing is under way any more: what was has streamed.

    Args:
        streams: Whether exchanges are streamed, and counted here.
    """

    def __init__(self, streams: bool) -> None:
        none = Histogram().counts
        self.begun: Array = np.tile(none, (len(Measure), 1))
        self.longer: Array = np.tile(none, (len(Longer), 1))
        self.over = False
        self._streams = streams
        self._streamed = {figure: Histogram() for figure in Figure}

    def add_events(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Counts streamed exchanges, where the kernel does not; their columns, with impossible waits left out."""
        kept = _possible(values)
        if self._streams:
            for figure, times in _parts(kept):
                self._streamed[figure].add(times)
        return kept

    def pending_events(self, rows: Array, taken: int = 0) -> dict[str, Array]:
        """The exchanges whose responses go on, as if they were streamed now.

        Args:
            rows: Open connections.
            taken: When they were read, ns.
        """
        rows = rows[rows["first"] != UNSEEN]
        now = np.uint64(taken)
        began = now - ((now - rows["moment"]) & np.uint64(MOMENT))
        return {
            "time": began + rows["lasts"], "latency": rows["first"], "transfer": rows["lasts"], "wait": rows["waited"],
            "side": rows["side"], "pid": rows["pid"], "srtt_us": rows["srtt_us"],
            "bytes": np.where(
                rows["side"] == Side.CLIENT,
                rows["received"] - rows["received_before"], rows["sent"] - rows["sent_before"],
            ) & np.uint64(2**32 - 1),
            "retransmits": rows["retransmits"] - rows["retransmits_before"],
            **{name: rows["who"][name] for name in ("local", "remote", "local_port", "remote_port")},
        }  # fmt: skip

    def histograms(self, rows: Array) -> dict[Figure, Histogram]:
        """Of each figure, as it is now.

        Args:
            rows: Open connections.
        """
        return self._of_streams(rows) if self._streams else self._of_counts(rows)

    def _of_streams(self, rows: Array) -> dict[Figure, Histogram]:
        pending = {} if self.over else dict(_parts(_possible(self.pending_events(rows))))
        made = {}
        for figure, streamed in self._streamed.items():
            made[figure] = Histogram(streamed.counts, streamed.moments)
            made[figure].add(pending.get(figure, np.zeros(0, np.uint64)))
        return made

    def _of_counts(self, rows: Array) -> dict[Figure, Histogram]:
        rows = rows[(rows["first"] != UNSEEN) & (rows["lasts"] > 0)]
        client = rows["side"] == Side.CLIENT
        first, lasts = rows["first"][client], rows["lasts"][client]

        def longer(row: Longer, times: Array) -> Array:
            histogram = Histogram(self.longer[row])
            histogram.add(times)
            return histogram.counts

        begun = {measure: counts.astype(np.int64) for measure, counts in zip(Measure, self.begun, strict=False)}
        counts = {Figure[measure.name]: of for measure, of in begun.items()}
        at_once = counts[Figure.FIRST_BYTE] - longer(Longer.FIRST_BYTE, first)
        counts[Figure.REQUEST] = np.maximum(at_once, 0) + longer(Longer.REQUEST, first + lasts)
        counts[Figure.TRANSFER] = longer(Longer.TRANSFER, lasts)
        counts[Figure.REPLY] = longer(Longer.REPLY, rows["lasts"][~client])
        for part, whole in ((Figure.TRANSFER, Figure.FIRST_BYTE), (Figure.REPLY, Figure.SERVICE)):
            counts[part][0] += max(int(counts[whole].sum() - counts[part].sum()), 0)  # in one part, which takes no time
        return {figure: Histogram(counts.get(figure)) for figure in Figure}


def _possible(values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of exchanges, with waits left out that are more than what they are a part of."""
    split = values["wait"] <= np.where(values["side"] == Side.CLIENT, values["latency"], np.uint64(LONGEST))
    return {**values, "wait": np.where(split, values["wait"], np.uint64(UNSEEN))}


def _parts(values: Mapping[str, Any]) -> list[tuple[Figure, Array]]:
    """What exchanges are made of, ns.

    Args:
        values: Columns of `struct event`; waits that are not known are UNSEEN.
    """
    client = values["side"] == Side.CLIENT
    latency, transfer, wait = values["latency"], values["transfer"], values["wait"]
    split = wait != UNSEEN
    return [
        (Figure.REQUEST, (latency + transfer)[client]),
        (Figure.FIRST_BYTE, latency[client]),
        (Figure.TRANSFER, transfer[client]),
        (Figure.SERVICE, latency[~client]),
        (Figure.REPLY, transfer[~client]),
        (Figure.WAKEUP, wait[client & split]),
        (Figure.PICKUP, wait[~client & split]),
        (Figure.WIRE, (latency - wait)[client & split]),
    ]
