"""What is wrong with a pool of connections, in words. Each finding has its rule here, and in docs/conntrack.md."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

import numpy as np
from attrs import frozen

from probekit import Array
from probekit.decode import address_text, endpoint_text

from .netfilter import Netfilter
from .pools import Pools
from .rows import accept_wait, handshake, jiffies_us, span
from .values import UNKNOWN, Closer, End, Side

ENOUGH = 20
"""Connections of a service, below which nothing is said about all of them."""
NEARLY_ALL = 0.9
SETTLED_REQUESTS = 10
"""Requests of a connection on average, from which on it is one that is used again."""
ACCEPT_WAIT_NS = 20_000_000
CUT_IDLE_US = 1_000_000
CUT_TIMES = 3
CUT_SHARE = 0.1
NEAR = 0.8


@frozen
class Finding:
    """Something to look at.

    Attributes:
        name: Which rule found it.
        service: Its address; empty for the machine's own.
        process: Command of the processes.
        netns: Network namespace.
        text: The finding with its figures.
    """

    name: str
    service: str
    process: str
    netns: int
    text: str


@frozen
class Evidence:
    """What findings are made of.

    Attributes:
        pools: Connections by service.
        ports: How many ephemeral ports each network namespace has, as far as it is known.
        netfilter: Netfilter's table by network namespace.
    """

    pools: Pools
    ports: Mapping[int, int]
    netfilter: Mapping[int, Netfilter]


def findings(evidence: Evidence) -> list[Finding]:
    """All of them, service by service."""
    pools = evidence.pools
    found = [
        *_new_connection_per_request(pools),
        *_pool_too_small(pools),
        *_accepted_late(pools),
        *_idle_cut_by_peer(pools),
        *_ports_nearly_exhausted(pools, evidence.ports),
    ]
    return [*found, *_netfilter(evidence.netfilter)]


def _new_connection_per_request(pools: Pools) -> Iterator[Finding]:
    """Hardly any connection of a client's service carries more than one request.

    At least 20 have begun and ended in the run with data both ways, and of nine in ten it is known that they carried
    one request. Where another probe counts requests it is known exactly, otherwise from the segments with data.
    """
    rows = pools.rows
    requests = np.where(np.isnan(pools.counts), pools.most, pools.counts)
    used = pools.born & ~pools.open & (rows["side"] == Side.CLIENT) & (pools.most > 0)
    carried, single = pools.number(used), pools.number(used & (requests <= 1))
    took = handshake(rows)
    half = pools.percentile(took, used & ~np.isnan(took), 50)
    for place in np.flatnonzero((carried >= ENOUGH) & (single >= NEARLY_ALL * carried)).tolist():
        cost = "" if np.isnan(half[place]) else f", and a handshake took {half[place] / 1e6:.3g} ms (median)"
        yield _of(
            pools, place, "new connection per request",
            f"{single[place]:,} of {carried[place]:,} connections carried one request each{cost}: keep connections "
            f"open and use them again",
        )  # fmt: skip


def _pool_too_small(pools: Pools) -> Iterator[Finding]:
    """All of a client's connections are busy nearly all the time.

    They carried ten requests or more on average, are at least two and no more than were ever open at once, and were
    busy with requests for nine tenths of the time that they were in use: from their beginning to their last data.
    """
    known = (pools.rows["side"] == Side.CLIENT) & ~np.isnan(pools.busy) & pools.lived
    used = np.maximum(pools.quiet - np.maximum(pools.start.astype(np.int64), pools.moment.began), 0)
    spans, busy = pools.sum(used.astype(np.float64), known), pools.sum(pools.busy, known)
    count, requests = pools.number(known), pools.sum(pools.counts, known)
    most, _ = pools.concurrency()
    settled = (count >= 2) & (count <= most) & (requests >= SETTLED_REQUESTS * count)
    for place in np.flatnonzero(settled & (busy >= NEARLY_ALL * spans) & (spans > 0)).tolist():
        yield _of(
            pools, place, "pool too small",
            f"all {count[place]} connections were busy with requests {min(busy[place] / spans[place], 1):.0%} of the "
            f"time: who needs another one waits; allow more connections",
        )  # fmt: skip


def _accepted_late(pools: Pools) -> Iterator[Finding]:
    """Connections wait in a server's accept queue.

    At least 20 were established in the run, and half of them waited 20 ms or more to be accepted, those that still wait
    included.
    """
    rows = pools.rows
    accepted = rows["accepted"] > 0
    waited = np.where(accepted, accept_wait(rows), span(rows["established"], pools.stop))
    served = pools.born & (rows["side"] == Side.SERVER) & ~np.isnan(waited)
    observed = pools.number(served & accepted) > 0  # otherwise nobody saw an accept
    count, wait = pools.number(served), pools.percentile(waited, served, 50)
    most, _ = pools.concurrency()
    for place in np.flatnonzero(observed & (count >= ENOUGH) & (wait >= ACCEPT_WAIT_NS)).tolist():
        yield _of(
            pools, place, "server's pool too small",
            f"{count[place]:,} connections waited {wait[place] / 1e6:.3g} ms (median) to be accepted, with up to "
            f"{most[place]} open: the server's workers are all busy",
        )  # fmt: skip


def _idle_cut_by_peer(pools: Pools) -> Iterator[Finding]:
    """The peer closes connections that are kept for later.

    At least three of a client's service, and a tenth of those that ended, were closed or reset by the peer after having
    carried data and then been idle for a second or more.
    """
    rows = pools.rows
    idle_us = jiffies_us(rows["peer_idle"])
    carried = (rows["side"] == Side.CLIENT) & (pools.most > 0)
    over = carried & ((rows["closer"] > Closer.NOBODY) | ~pools.open)
    cut = (
        over
        & (rows["closer"] == Closer.REMOTE)
        & np.isin(rows["end"], (End.OPEN, End.FIN, End.RST_RECEIVED, End.RST_SENT))
    )
    cut &= (rows["peer_idle"] != UNKNOWN) & (np.nan_to_num(idle_us) >= CUT_IDLE_US)
    count, ended = pools.number(cut), pools.number(over)
    least, half = (pools.percentile(np.nan_to_num(idle_us), cut, percent) for percent in (0, 50))
    for place in np.flatnonzero((count >= CUT_TIMES) & (count >= CUT_SHARE * ended)).tolist():
        yield _of(
            pools, place, "idle connections cut by the peer",
            f"{count[place]:,} of {ended[place]:,} connections, after {half[place] / 1e6:.3g} s without data (median; "
            f"at least {least[place] / 1e6:.3g} s): give them up earlier, or keep them alive",
        )  # fmt: skip


def _ports_nearly_exhausted(pools: Pools, ports: Mapping[int, int]) -> Iterator[Finding]:
    """There are hardly any ephemeral ports left for one destination.

    From one local address to one remote address and port, eight tenths of them or more are taken, or a connect found
    none; and connections in TIME_WAIT take more of them than open ones.
    """
    rows = pools.rows
    client = rows["side"] == Side.CLIENT
    failed = client & (rows["error"] == errno.EADDRNOTAVAIL) & (rows["end"] == End.FAILED)
    waiting, used = client & pools.waiting, client & pools.open & (rows["origin"] > 0)
    for group in _destinations(rows, waiting | used | failed):
        first = group[0]
        number = ports.get(int(rows["netns"][first]))
        waits, uses, fails = (int(chosen[group].sum()) for chosen in (waiting, used, failed))
        if number is None or (waits + uses < NEAR * number and not fails) or waits <= uses:
            continue
        suffix = f"; {fails:,} connects found none" if fails else ""
        yield _of(
            pools, int(pools.place[first]), "port exhaustion near",
            f"{waits:,} of {number:,} ephemeral ports in TIME_WAIT, from {address_text(rows['local'][first][None])[0]}"
            f"{suffix}: use connections again, or widen net.ipv4.ip_local_port_range",
        )  # fmt: skip


def _destinations(rows: Array, chosen: Array) -> Iterator[Array]:
    """Places of the chosen rows, those of one local address, remote address and port together."""
    places = np.flatnonzero(chosen)
    if not len(places):
        return
    kind = [("netns", "u4"), ("local", "u1", 16), ("remote", "u1", 16), ("remote_port", "u2")]
    keys = np.zeros(len(places), kind)
    for name in keys.dtype.names or ():
        keys[name] = rows[name][places]
    # a connect that found no port has no local address where that is to be chosen, too
    _, group = np.unique(keys.view(f"V{keys.itemsize}"), return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    yield from np.split(places[order], np.flatnonzero(np.diff(group.ravel()[order])) + 1)


def _netfilter(tables: Mapping[int, Netfilter]) -> Iterator[Finding]:
    """The table is full to eight tenths or more; or entries could not be made, or went early, during the run."""
    for netns, table in tables.items():
        if table.most and table.entries >= NEAR * table.most:
            yield Finding(
                "netfilter's table nearly full", "", "", netns,
                f"{table.entries:,} of {table.most:,} entries: raise net.netfilter.nf_conntrack_max",
            )  # fmt: skip
        lost = {name: count for name, count in table.counters.items() if name in _LOSSES and count}
        if lost:
            what = ", ".join(f"{name} {count:,}" for name, count in lost.items())
            yield Finding("netfilter's table lost connections", "", "", netns, f"{what} since the run began")


_LOSSES = ("insert_failed", "drop", "early_drop")


def _of(pools: Pools, place: int, name: str, text: str) -> Finding:
    service = pools.services[place]
    endpoint = endpoint_text(service["address"][None], service["port"][None])[0]
    return Finding(name, str(endpoint), service["command"].decode(errors="replace"), int(service["netns"]), text)
