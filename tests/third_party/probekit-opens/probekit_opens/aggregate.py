"""Opened files to figures."""

from collections import Counter

import numpy as np
from probekit import Column, Columns, Figures, Table


class OpensAggregator:
    """Counts how often each process opened each path; of too many, the rarest are added up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: Counter[tuple[bytes, bytes]] = Counter()
        self._folded = 0
        self._counters = {"calls": 0, "lost": 0}

    def update(self, columns: Columns) -> None:
        if columns.source == "counters":
            self._counters = {name: int(count[0]) for name, count in columns.values.items()}
            return
        self._seen.update(zip(columns.values["command"].tolist(), columns.values["path"].tolist(), strict=True))
        if len(self._seen) > 10 * self._most:
            kept = Counter(dict(self._seen.most_common(5 * self._most)))
            self._folded += self._seen.total() - kept.total()
            self._seen = kept

    def snapshot(self) -> Figures:
        listed = self._seen.most_common(self._most)
        commands, paths = ([key[place].decode(errors="replace") for key, _ in listed] for place in (0, 1))
        columns = (
            Column("process", np.array(commands, np.str_), label=True, help="its command name"),
            Column("path", np.array(paths, np.str_), label=True, help="as it gave it"),
            Column("opens", np.array([count for _, count in listed], np.int64), total=True, help="calls of openat"),
        )
        key = np.array([f"{command} {path}" for command, path in zip(commands, paths, strict=True)], np.str_)
        unlisted = self._folded + self._seen.total() - sum(count for _, count in listed)
        return Figures(
            summary={"total_events": self._counters["calls"], "unlisted": unlisted},
            tables=(Table("files", columns, key),),
            lost={"queue_full": self._counters["lost"]},
        )
