"""Answers to figures."""

import numpy as np
from probekit import Array, Column, Columns, Figures, Table
from probekit.aggregate import Histogram
from probekit.decode import address_text


class DnsAggregator:
    """Keeps a histogram of all answers, and of each server number, errors, sum and maximum."""

    def __init__(self) -> None:
        self._latency = Histogram()
        self._servers: dict[bytes, Array] = {}  # answers, errors, ns in all, longest
        self._counters = {"queries": 0, "answers": 0, "answers_lost": 0}

    def update(self, columns: Columns) -> None:
        values = columns.values
        if columns.source == "counters":
            self._counters = {name: int(count[0]) for name, count in values.items()}
            return
        self._latency.add(values["latency"])
        for server, latency, rcode in zip(values["server"], values["latency"].tolist(), values["rcode"], strict=True):
            seen = self._servers.setdefault(server.tobytes(), np.zeros(4, np.int64))
            seen += (1, rcode != 0, latency, 0)
            seen[3] = max(seen[3], latency)

    def snapshot(self) -> Figures:
        figures = np.array(list(self._servers.values()), np.int64).reshape(-1, 4)
        names = address_text(np.frombuffer(b"".join(self._servers), "u1").reshape(-1, 16))
        columns = (
            Column("server", names, label=True, help="its address"),
            Column("answers", figures[:, 0], total=True, help="answers that came"),
            Column("errors", figures[:, 1], total=True, help="those whose RCODE is not 0"),
            Column("avg_latency_us", figures[:, 2] / np.maximum(figures[:, 0], 1) / 1e3, help="average"),
            Column("max_latency_us", figures[:, 3] / 1e3, help="longest"),
        )
        queries, answers = self._counters["queries"], self._counters["answers"]
        return Figures(
            summary={"total_events": answers, "queries": queries, "unanswered": max(queries - answers, 0)},
            tables=(Table("servers", columns, key=names),),
            distributions=(self._latency.distribution("lookup", "from a query's packet to its answer's"),),
            lost={"answers_ring_full": self._counters["answers_lost"]},
        )
