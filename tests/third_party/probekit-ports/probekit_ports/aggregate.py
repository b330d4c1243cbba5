"""Columns of the latency probe to figures by port."""

from collections.abc import Mapping

import numpy as np
from probekit import Array, Column, Columns, Figures, Table

_FIELDS = ("side", "events", "sum", "max")
_SERVER = 1


class PortsAggregator:
    """Adds up closed connections, and beside them keeps the open ones as they were last seen."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._closed: dict[tuple[int, int], Array] = {}  # by port and side: exchanges, ns in all, longest
        self._open: dict[str, Array] = {}

    def update(self, columns: Columns) -> None:
        if columns.source == "connections":  # the whole table, as it is now
            self._open = dict(columns.values)
        elif columns.source == "closed":
            _add(self._closed, columns.values)
            if self._open:  # what left the table after it was read
                there = ~np.isin(self._open["socket"], columns.values["socket"])
                self._open = {name: values[there] for name, values in self._open.items()}

    def snapshot(self) -> Figures:
        ports = {key: seen.copy() for key, seen in self._closed.items()}
        if self._open:
            _add(ports, self._open)
        first = sorted(ports, key=lambda key: -ports[key][0])[: self._most]
        seen = np.array([ports[key] for key in first], np.int64).reshape(-1, 3)
        sides = np.array(["server" if side == _SERVER else "client" for _, side in first], dtype=np.str_)
        columns = (
            Column("port", np.array([port for port, _ in first], np.int64), label=True, help="the server's"),
            Column("side", sides, label=True, help="which end is on this machine"),
            Column("events", seen[:, 0], total=True, help="requests of clients, services of servers"),
            Column("avg_latency_us", seen[:, 1] / np.maximum(seen[:, 0], 1) / 1e3, help="average"),
            Column("max_latency_us", seen[:, 2] / 1e3, help="longest"),
        )
        key = np.array([f"{port} {side}" for (port, _), side in zip(first, sides, strict=True)], dtype=np.str_)
        return Figures(summary={"ports": len(ports)}, tables=(Table("ports", columns, key),))


def _add(ports: dict[tuple[int, int], Array], values: Mapping[str, Array]) -> None:
    port = np.where(values["side"] == _SERVER, values["local_port"], values["remote_port"])
    rows = zip(port.tolist(), *(values[name].tolist() for name in _FIELDS), strict=True)
    for number, side, events, total, longest in rows:
        if events:
            seen = ports.setdefault((number, side), np.zeros(3, np.int64))
            seen += (events, total, 0)
            seen[2] = max(seen[2], longest)
