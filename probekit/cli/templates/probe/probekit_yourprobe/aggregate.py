"""Columns to figures."""

import numpy as np
from probekit import Column, Columns, Figures, Table
from probekit.aggregate import Histogram
from probekit.decode import text


class YourprobeAggregator:
    """Keeps the newest columns of each map: all of them are totals."""

    def __init__(self) -> None:
        self._commands = {"name": np.zeros(0, "S16"), "processes": np.zeros(0, "u8"), "age": np.zeros(0, "u8")}
        self._ages = Histogram()
        self._lost = {"commands_full": 0}

    def update(self, columns: Columns) -> None:
        if columns.source == "commands":
            self._commands = dict(columns.values)
        elif columns.source == "ages":
            self._ages = Histogram(columns.values["buckets"][0])
        else:
            self._lost = {cause: int(count[0]) for cause, count in columns.values.items()}

    def snapshot(self) -> Figures:
        names, processes = text(self._commands["name"]), self._commands["processes"]
        columns = (
            Column("command", names, label=True, help="name of the program"),
            Column("processes", processes, total=True, help="processes that ended"),
            Column("avg_age_ms", self._commands["age"] / np.maximum(processes, 1) / 1e6, help="average age"),
        )
        ages = self._ages.distribution("age", "from a process's birth to its end")
        return Figures({"total_events": ages.events}, (Table("commands", columns, key=names),), (ages,), self._lost)
