"""The figures of every snapshot in a SQLite database."""

import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from attrs import frozen
from probekit import Exporter, ExportError, Figures, Snapshot, hook, option
from probekit.export import PATH_RULE, check_template, place, prepare, rows

_TABLE = "CREATE TABLE IF NOT EXISTS figures (probe, taken, final, name, key, figure, value)"
_MOST = 2**63 - 1


@frozen
class SqliteConfig:
    """A SQLite database."""

    path: str = option(
        "probekit.db", help="the database", allowed=PATH_RULE, check=lambda p: p != "-" and check_template(p)
    )


class SqliteExporter:
    """Adds the figures of each snapshot in one transaction."""

    def __init__(self, config: SqliteConfig) -> None:
        self._path = config.path
        self._open: dict[str, sqlite3.Connection] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Exporter:
        prepare(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def export(self, snapshot: Snapshot) -> None:
        path = place(self._path, snapshot.probe)
        head = (snapshot.probe, snapshot.taken, snapshot.final)
        try:
            with self._database(path) as database:
                values = ((*head, *names, _stored(value)) for *names, value in _figures(snapshot.figures))
                database.executemany("INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        except (OSError, sqlite3.Error) as error:
            raise ExportError(f"{path}: {error}") from error

    def _database(self, path: str) -> sqlite3.Connection:
        if path not in self._open:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # for its owner's eyes
            self._open[path] = sqlite3.connect(path)
            self._stack.callback(self._open[path].close)
            self._open[path].execute(_TABLE)
        return self._open[path]


def _figures(figures: Figures) -> Iterator[tuple[str, str, str, Any]]:
    """Name, key, figure, value of everything in a snapshot."""
    for name, value in figures.summary.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        yield from (("summary", name, part, each) for part, each in parts)
    yield from (("lost", cause, "", count) for cause, count in figures.lost.items())
    for distribution in figures.distributions:
        yield distribution.name, "", "events", distribution.events
        yield from ((distribution.name, "", name, value) for name, value in distribution.percentiles.items())
    for table in figures.tables:
        for key, row in zip(table.key.tolist(), rows(table), strict=True):
            yield from ((table.name, str(key), figure, value) for figure, value in row.items())


def _stored(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return float(value) if isinstance(value, int) and value > _MOST else value


@hook
def probekit_config() -> type:
    return SqliteConfig


@hook
def probekit_export(config: SqliteConfig) -> Exporter:
    return SqliteExporter(config)
