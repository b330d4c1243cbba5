"""The newest snapshot of each probe as a Markdown page."""

from types import TracebackType
from typing import Any

from attrs import frozen
from probekit import Exporter, Snapshot, Table, hook, option
from probekit.export import PATH_RULE, check_template, place, prepare, rounded, rows, visible, write


@frozen
class YourexporterConfig:
    """Markdown pages."""

    path: str = option("-", help="the file", allowed=PATH_RULE, check=check_template)


class YourexporterExporter:
    """Replaces the file with every snapshot; standard output gets the last one only."""

    def __init__(self, config: YourexporterConfig) -> None:
        self._path = config.path

    def __enter__(self) -> Exporter:
        prepare(self._path)  # a file that cannot be written is refused before anything is measured
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def export(self, snapshot: Snapshot) -> None:
        if snapshot.final or self._path != "-":
            parts = [f"# {snapshot.probe}", *(_markdown(table) for table in snapshot.figures.tables)]
            lost = {cause: count for cause, count in snapshot.figures.lost.items() if count}
            parts.append(f"Lost: {lost or 'nothing'}.")
            write(place(self._path, snapshot.probe), "\n\n".join(parts) + "\n")


def _markdown(table: Table) -> str:
    names = [column.name for column in table.columns]
    lines = [f"## {table.name}", "", _line(names), _line(["---"] * len(names))]
    return "\n".join([*lines, *(_line(list(rounded(row).values())) for row in rows(table))])


def _line(cells: list[Any]) -> str:
    # Processes choose their names: visible() leaves no escape sequence and no end of a line in them.
    return "| " + " | ".join(visible(str(cell)).replace("|", "\\|") for cell in cells) + " |"


@hook
def probekit_config() -> type:
    return YourexporterConfig


@hook
def probekit_export(config: YourexporterConfig) -> Exporter:
    return YourexporterExporter(config)
