"""The connection tracker's tables, for people and files."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import numpy as np

from probekit import Array, Column, Table
from probekit.aggregate import chosen, ends_keys, unique_keys
from probekit.decode import endpoint_text, identity_text, named, text, words

from .findings import Finding
from .netfilter import Netfilter
from .pools import Pools
from .rows import accept_wait, handshake, idle_us, span
from .values import DWELT, Closer, End, Origin, Side, State

_UNMEASURED_RTT = 2**32 - 1
_SHOWN_OVER_TIME = 10
_ERRORS = {0: "", **errno.errorcode}


def connections(pools: Pools, cgroups: Mapping[int, str], news: bool) -> Table:
    """The main table: open connections, then those that ended, newest first.

    Args:
        pools: The connections.
        cgroups: Paths by number.
        news: Without those whose end was told.
    """
    order = np.lexsort((-pools.rows["ended"].astype(np.int64), ~pools.open))
    if news:
        order = order[pools.rows["told"][order] == 0]
    rows, stop = chosen(pools.rows, order), pools.stop[order]
    life = span(rows["began"], stop) / 1e3
    source = endpoint_text(rows["local"], rows["local_port"])
    destination = endpoint_text(rows["remote"], rows["remote_port"])
    min_rtt = np.where(rows["min_rtt_us"] >= _UNMEASURED_RTT, np.nan, rows["min_rtt_us"])
    return Table(
        name="connections",
        key=ends_keys(source, destination),
        columns=(
            Column("source", source, label=True, help="the socket's own address"),
            Column("destination", destination, label=True, help="its peer's"),
            Column("side", words(Side, rows["side"]), label=True, help="who opened the connection: client or server"),
            Column("netns", rows["netns"], label=True, help="network namespace"),
            Column("pid", rows["pid"], label=True, help="process that connected or accepted; 0: unknown"),
            Column("process", text(rows["command"]), label=True, help="its command name"),
            Column("cgroup", named(rows["cgroup"], cgroups), label=True, help="its cgroup"),
            Column("id", identity_text(rows["id"]), label=True, help="the same for all probes and at both ends"),
            Column("state", words(State, rows["state"]), label=True, help="of the socket; close: it has ended"),
            Column("end", words(End, rows["end"]), label=True, help="how it ended"),
            Column("closed_by", words(Closer, rows["closer"]), label=True, help="who closed first"),
            Column("error", named(rows["error"], _ERRORS, "{}"), label=True, help="what the program gets to see"),
            Column("older", rows["origin"] == Origin.FOUND, label=True, help="its beginning was not seen by this run"),
            Column("time_wait", rows["time_wait"] > 0, label=True, help="its address stayed in TIME_WAIT"),
            Column("lifetime_us", life, help="birth to end, or to now"),
            Column("handshake_us", handshake(rows) / 1e3, help="SYN to SYN-ACK; of a server SYN-ACK to ACK"),
            Column("accept_wait_us", accept_wait(rows) / 1e3, help="established until accepted"),
            Column("syn_retransmits", rows["syn_retransmits"], help="SYNs, of a server SYN-ACKs, sent again"),
            *_dwells(rows, stop, life),
            Column("bytes_acked", rows["acked"], total=True, help="sent and acknowledged"),
            Column("bytes_received", rows["received"], total=True, help="received"),
            Column("segments_out", rows["segments_out"], total=True, help="sent, those without data included"),
            Column("segments_in", rows["segments_in"], total=True, help="received, those without data included"),
            Column("retransmits", rows["retransmits"], total=True, help="segments sent again"),
            Column("srtt_us", rows["srtt_us"], help="the kernel's smoothed round-trip time"),
            Column("min_rtt_us", min_rtt, help="the shortest round trip that the kernel saw lately"),
            Column("cwnd", rows["cwnd"], help="congestion window, segments"),
            Column("idle_us", idle_us(rows, life), help="since data was last sent or received, or until it ended"),
            Column("requests", pools.counts[order], help="where another probe counts them"),
        ),
        headline=(
            "source",
            "destination",
            "side",
            "process",
            "state",
            "end",
            "closed_by",
            "handshake_us",
            "lifetime_us",
        ),
    )


def services(pools: Pools, folded: Array) -> Table:
    """A row for each service, those with the most connections first.

    Args:
        pools: The connections that are kept.
        folded: Of each service: closed connections that are kept no longer.
    """
    client = pools.services["side"] == Side.CLIENT
    opened = pools.number(pools.born & pools.lived) + folded
    closed = pools.number(pools.lived & ~pools.open) + folded
    now_open, failed = pools.number(pools.lived & pools.open), pools.number(pools.failed)
    most, mean = pools.concurrency()
    seconds = pools.moment.seconds
    known = ~np.isnan(pools.counts)
    watched = (pools.stop.astype(np.float64) - np.maximum(pools.start, np.uint64(pools.moment.began))).clip(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        reuse = pools.sum(pools.counts, known) / pools.number(known)
        idle = 1 - pools.sum(pools.busy, known) / pools.sum(watched, known)
        churn = np.where(mean > 0, opened / seconds / mean, np.nan)
    lifetime, shaken = span(pools.start, pools.stop), handshake(pools.rows)
    ended = pools.lived & ~pools.open & ~np.isnan(lifetime)
    endpoints = endpoint_text(pools.services["address"], pools.services["port"])
    order = np.argsort(-(opened + failed + now_open), kind="stable")
    columns = (
        Column("service", endpoints, label=True, help="a client's peer, or a server's own address"),
        Column("side", words(Side, pools.services["side"]), label=True, help="side of these connections"),
        Column("process", text(pools.services["command"]), label=True, help="command of their processes"),
        Column("netns", pools.services["netns"], label=True, help="network namespace"),
        Column("processes", _distinct(pools), help="how many"),
        Column("open", now_open, help="now"),
        Column("opened", opened, total=True, help="during the run"),
        Column("closed", closed, total=True, help="during the run"),
        Column("failed", failed, total=True, help="never established"),
        Column("opened_per_s", opened / seconds, help="over the whole run"),
        Column("closed_per_s", closed / seconds, help="over the whole run"),
        Column("requests_per_connection", reuse, help="where another probe counts them"),
        Column("idle_share", np.where(client, idle.clip(0, 1), np.nan), help="of their time without a request"),
        Column("churn_per_s", churn, help="share of the connections that is replaced in a second"),
        Column("open_max", most, help="most at once"),
        Column("open_avg", mean, help="over the whole run"),
        Column("in_time_wait", pools.number(pools.waiting), help="now, at this end"),
        Column("handshake_p50_us", pools.percentile(shaken / 1e3, ~np.isnan(shaken), 50), help="median"),
        *(
            Column(f"lifetime_p{percent}_us", pools.percentile(lifetime / 1e3, ended, percent), help="of those over")
            for percent in (50, 90, 99)
        ),
    )  # fmt: skip
    ordered = tuple(Column(c.name, c.values[order], c.label, c.total, c.help) for c in columns)
    names = [
        f"{who} {side} {where}"
        for who, side, where in zip(*(ordered[i].values.tolist() for i in (2, 1, 0)), strict=True)
    ]
    return Table(
        name="services",
        key=unique_keys(names),
        columns=ordered,
        headline=("service", "side", "process", "open", "opened", "closed", "failed", "open_max", "lifetime_p50_us"),
    )


def findings(found: list[Finding]) -> Table:
    """A row for each finding."""
    columns = (
        ("finding", [f.name for f in found]), ("service", [f.service for f in found]),
        ("process", [f.process for f in found]), ("netns", [f.netns for f in found]),
        ("text", [f.text for f in found]),
    )  # fmt: skip
    return Table(
        name="findings",
        key=unique_keys([f"{f.name}: {f.process} {f.service}".strip(": ") for f in found]),
        columns=tuple(
            Column(name, np.array(values, dtype=np.int64 if name == "netns" else np.str_), label=True)
            for name, values in columns
        ),
        headline=("finding", "process", "service", "text"),
    )


def over_time(pools: Pools) -> Table:
    """Connections of the largest services, by slots of the run."""
    total = pools.number(pools.lived)
    wanted = np.argsort(-total, kind="stable")[:_SHOWN_OVER_TIME]
    ends, *figures = pools.over_time(wanted)
    something = np.sum(figures, axis=0).ravel() > 0
    which = np.repeat(wanted, len(ends))[something]
    endpoint = endpoint_text(pools.services["address"][which], pools.services["port"][which])
    process, side = text(pools.services["command"][which]), words(Side, pools.services["side"][which])
    until = np.tile(ends.round(3), len(wanted))[something]
    names = zip(process.tolist(), side.tolist(), endpoint.tolist(), until.tolist(), strict=True)
    return Table(
        name="over_time",
        key=unique_keys([f"{who} {which} {where} {end:.3f}" for who, which, where, end in names]),
        columns=(
            Column("service", endpoint, label=True, help="as in services"),
            Column("side", side, label=True, help="as in services"),
            Column("process", process, label=True, help="as in services"),
            Column("until_s", until, label=True, help="end of the slot, seconds since the run began"),
            *(
                Column(name, values.ravel()[something], help=text)
                for name, values, text in zip(
                    ("opened", "closed", "open"), figures,
                    ("in the slot", "in the slot", "at the slot's end"), strict=True,
                )
            ),
        ),
    )  # fmt: skip


def netfilter(tables: Mapping[int, Netfilter]) -> Table:
    """Netfilter's own table: a row for each figure."""
    lines = [
        (netns, name, value)
        for netns, table in tables.items()
        for name, value in (
            ("entries", table.entries), ("max", table.most),
            *((f"TCP {state}", count) for state, count in sorted(table.states.items())),
            *table.counters.items(),
        )
    ]  # fmt: skip
    return Table(
        name="netfilter",
        key=np.array([f"{netns} {name}" for netns, name, _ in lines], dtype=np.str_),
        columns=(
            Column("netns", np.array([n for n, _, _ in lines], dtype=np.int64), label=True, help="network namespace"),
            Column("figure", np.array([name for _, name, _ in lines], dtype=np.str_), label=True),
            Column("value", np.array([value for _, _, value in lines], dtype=np.int64)),
        ),
    )


def _dwells(rows: Array, stop: Array, life: Array) -> tuple[Column, ...]:
    """A column for each state: how long the socket was in it, the state that it is in included."""
    dwell = rows["dwell"].astype(np.float64)
    dwell[np.arange(len(rows)), rows["state"]] += np.where(rows["ended"] > 0, 0, span(rows["changed"], stop))
    dwell = np.minimum(dwell / 1e3, life[:, None])
    return tuple(Column(f"{state.name.lower()}_us", dwell[:, state], help=f"in {state.name}") for state in DWELT)


def _distinct(pools: Pools) -> Array:
    """Processes of each service."""
    pairs = np.unique(
        np.stack([pools.place, pools.rows["pid"].astype(np.int64)], axis=1)[pools.rows["pid"] > 0], axis=0
    )
    return np.bincount(pairs[:, 0], minlength=len(pools.services))
