"""The latency probe's tables, for people and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probekit import Array, Column, Table
from probekit.aggregate import chosen, ends_keys, stacked, unique_keys
from probekit.decode import endpoint_text, identity_text, named, words

from .findings import Finding
from .rows import averages, verdict
from .values import UNSEEN, End, Origin, Side

_OTHERS = "(other connections)"


def connections(rows: Array, others: Array, owners: Mapping[int, str], taken: int, first_bytes: bool) -> Table:
    """The main table.

    Args:
        rows: Connections to list, of dtype `rows.ROW`.
        others: Those beyond, added up, a row a side.
        owners: Command names by process id.
        taken: When open ones were read, ns.
        first_bytes: The main figures are of first bytes.
    """
    rows = chosen(rows, np.argsort(-rows["events"].astype(np.int64), kind="stable"))
    sums = stacked([rows, others])
    mean = averages(sums, first_bytes)
    client, known = sums["side"] == Side.CLIENT, sums["events"] > 0
    listed = np.arange(len(sums)) < len(rows)
    who = sums["who"]
    source = np.where(listed, endpoint_text(who["local"], who["local_port"]), _OTHERS)
    destination = np.where(listed, endpoint_text(who["remote"], who["remote_port"]), _OTHERS)
    return Table(
        name="connections",
        key=ends_keys(source, destination),
        columns=(
            Column("source", source, label=True, help="the socket's own address"),
            Column("destination", destination, label=True, help="its peer's"),
            Column("side", words(Side, sums["side"]), label=True, help="who opened the connection: client or server"),
            Column("pid", np.where(listed, sums["pid"], 0), label=True, help="process that began the last exchange"),
            Column(
                "process",
                np.where(listed, named(sums["pid"], owners), ""),
                label=True,
                help="its command name",
            ),
            Column(
                "id",
                np.where(listed, identity_text(sums["id"]), ""),
                label=True,
                help="the same for all probes and at both ends",
            ),
            Column("events", sums["events"], total=True, help="requests of a client, services of a server"),
            Column("min_latency_us", np.where(known, sums["min"], np.nan) / 1e3, help="shortest"),
            Column("avg_latency_us", mean["main"] / 1e3, help="average"),
            Column("max_latency_us", np.where(known, sums["max"], np.nan) / 1e3, help="longest"),
            Column("std_dev_us", mean["deviation"] / 1e3, help="standard deviation"),
            Column(
                "avg_first_byte_us",
                np.where(client, mean["first"], np.nan) / 1e3,
                help="average of a request's part until the first of its response is handed over",
            ),
            Column(
                "avg_wire_us",
                mean["wire"] / 1e3,
                help="average of a request's part until its response is at the socket",
            ),
            Column("avg_wakeup_us", mean["wait"] / 1e3, help="average time of data at the socket until handed over"),
            Column(
                "avg_transfer_us",
                mean["lasts"] / 1e3,
                help="average from the first to the last of a response: handed to a client, sent by a server",
            ),
            Column(
                "waiting_us",
                np.where(listed & (sums["since"] > 0), np.maximum(taken - sums["since"].astype(np.int64), 0), np.nan)
                / 1e3,
                help="how long the request that is under way has been waiting for its response",
            ),
            Column("srtt_us", np.where(listed, sums["srtt_us"], 0), help="the kernel's smoothed round-trip time"),
            Column("min_rtt_us", np.where(listed, sums["min_rtt_us"], 0), help="the kernel's smallest, in steps of 4"),
            Column("verdict", verdict(sums, first_bytes), label=True, help="where most of the time went"),
            Column("bytes_sent", sums["sent"], total=True, help="over the connection's life, without retransmits"),
            Column("bytes_received", sums["received"], total=True, help="over the connection's life"),
            Column("retransmits", sums["retransmits"], total=True, help="segments, over the connection's life"),
            Column(
                "state",
                np.where(listed, words(End, sums["end"]), "closed"),
                label=True,
                help="open or closed; evicted: left, and not seen since",
            ),
            Column(
                "older",
                listed & (sums["origin"] == Origin.UNSEEN),
                label=True,
                help="its beginning was not seen by this run",
            ),
        ),
        headline=(
            "source",
            "destination",
            "side",
            "process",
            "events",
            "avg_latency_us",
            "max_latency_us",
            "verdict",
        ),
    )


def findings(found: list[Finding]) -> Table:
    """A row for each finding."""
    names = ("finding", "service", "process", "text", "next")
    return Table(
        name="findings",
        key=unique_keys([f"{f.finding}: {f.process} {f.service}".strip() for f in found]),
        columns=tuple(
            Column(name, np.array([getattr(each, name) for each in found], np.str_), label=True) for name in names
        ),
        headline=names,
    )


def events(batches: list[Any], owners: Mapping[int, str]) -> Table:
    """Streamed events, a row each.

    Args:
        batches: Columns of `struct event`, decoded.
        owners: Command names by process id.
    """
    names = (
        "time", "latency", "transfer", "wait", "local", "remote", "local_port", "remote_port", "side", "pid", "srtt_us",
        "bytes", "retransmits",
    )  # fmt: skip
    if batches:
        values = {name: np.concatenate([batch[name] for batch in batches]) for name in names}
        order = np.argsort(values["time"], kind="stable")  # an exchange comes when it is known to be over
        values = {name: column[order] for name, column in values.items()}
    else:
        values = {name: np.zeros((0, 16) if name in ("local", "remote") else 0, "u1") for name in names}
    source = endpoint_text(values["local"], values["local_port"])
    destination = endpoint_text(values["remote"], values["remote_port"])
    client, split = values["side"] == Side.CLIENT, values["wait"] != UNSEEN
    latency, transfer = values["latency"], values["transfer"]
    return Table(
        name="events",
        key=np.arange(len(source)),
        columns=(
            Column("time_ns", values["time"], label=True, help="CLOCK_MONOTONIC when it ended"),
            Column("type", np.where(client, "request", "service"), label=True),
            Column("source", source, label=True),
            Column("destination", destination, label=True),
            Column("pid", values["pid"], label=True),
            Column("process", named(values["pid"], owners), label=True),
            Column("latency_us", (latency + np.where(client, transfer, 0).astype(latency.dtype)) / 1e3),
            Column("first_byte_us", np.where(client, latency, np.nan) / 1e3),
            Column("wire_us", np.where(client & split, latency - values["wait"], np.nan) / 1e3),
            Column("wakeup_us", np.where(split, values["wait"], np.nan) / 1e3),
            Column("transfer_us", transfer / 1e3),
            Column("srtt_us", values["srtt_us"]),
            Column("bytes", values["bytes"]),
            Column("retransmits", values["retransmits"]),
        ),
    )
