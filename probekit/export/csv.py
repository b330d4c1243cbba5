"""The `csv` exporter: one table of each probe, replaced with every snapshot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from attrs import frozen

from .. import hook
from ..config.options import option
from ..errors import ExportError
from ..model import Array, Snapshot, Table
from . import files
from .document import rounded
from .safe import cell, visible


@frozen
class CsvConfig:
    """One table as CSV."""

    path: str = option("-", help="file to write", allowed=files.PATH_RULE, check=files.check_template)
    force: bool = option(False, help=files.FORCE_HELP)
    table: str = option("", help="table of the probe to write; if not set, the main one", example='"connections"')


class CsvExporter:
    """Writes the newest snapshot's table; to what is open already, such as standard output, only the last one."""

    replaces = True

    def __init__(self, config: CsvConfig) -> None:
        self._config = config

    def __enter__(self) -> CsvExporter:
        """Looks whether the file can be written."""
        files.prepare(self._config.path, self._config.force)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def export(self, snapshot: Snapshot) -> None:
        """Replaces the file."""
        path = files.place(self._config.path, snapshot.probe)
        if snapshot.final or not files.is_open(path):
            files.write(path, _text(self._table(snapshot)), self._config.force)

    def _table(self, snapshot: Snapshot) -> Table:
        wanted = self._config.table
        tables = snapshot.shown
        for table in tables:
            if wanted in ("", table.name):
                return table
        there = ", ".join(visible(table.name) for table in tables) or "none"
        raise ExportError(f"the probe {snapshot.probe} has no table {wanted or 'at all'} (available: {there})")


def _text(table: Table) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([cell(column.name) for column in table.columns])
    writer.writerows(zip(*(_cells(column.values) for column in table.columns), strict=True))
    return out.getvalue()


def _cells(values: Array) -> Iterator[Any]:
    """Each value of a column as a cell; text is what outsiders make."""
    plain = values.tolist()
    return map(cell, plain) if values.dtype.kind not in "biuf" else map(rounded, plain)


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "csv"`."""
    return CsvConfig


@hook
def probekit_export(config: CsvConfig) -> CsvExporter:
    """The exporter."""
    return CsvExporter(config)
