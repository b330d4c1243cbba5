"""Snapshots as people read them on a terminal. Imported with the first one: rich takes its time."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..model import Column, Distribution, Snapshot, Table
from .document import attached_text

_PIPE_WIDTH = 10_000  # a pipe has no width: a row is a line


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process, and with it the other exporters."""
        raise


def show(snapshot: Snapshot, rows: int, wide: bool) -> None:
    """Prints the tables of the last snapshot, and of streamed events each one as it comes.

    Args:
        snapshot: What to print.
        rows: At most so many of each table.
        wide: All columns of each table.

    Raises:
        OSError: Standard output cannot be written.
    """
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = _Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)
    if snapshot.figures.stream is not None:
        _print_stream(console, snapshot.figures.stream)
    if snapshot.final:
        _print(console, snapshot, rows, wide)
    sys.stdout.flush()


def _print(console: Console, snapshot: Snapshot, rows: int, wide: bool) -> None:
    figures = snapshot.figures
    console.print(Text(f"{snapshot.probe}", "bold"), _summary(snapshot))
    for distributions in (figures.distributions,) if figures.distributions else ():
        console.print(_percentiles(distributions))
        console.print(_histogram(distributions[0]))
    for table in figures.tables:
        console.print(_table(table, rows, wide))
    lost = {cause: count for cause, count in figures.lost.items() if count}
    style = "bold red" if lost else "green"
    text = ", ".join(f"{cause} {count:,}" for cause, count in lost.items()) or "nothing"
    console.print(Text.assemble("lost: ", (text, style)))
    attached = ", ".join(f"{a.observation}: {attached_text(a)}" for a in snapshot.attached)
    console.print(Text(f"attached on {snapshot.kernel}: {attached}", "dim"))


def _summary(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.taken - snapshot.started:.1f} s"]
    for name, value in snapshot.figures.summary.items():
        if isinstance(value, dict):
            parts += [f"{key} {count:,}" for key, count in value.items() if count]
        elif not isinstance(value, str) and value and name != "total_events":
            parts.append(f"{name.replace('_', ' ')} {value:,}")
    return " · ".join(parts)


def _percentiles(distributions: tuple[Distribution, ...]) -> RichTable:
    table = RichTable(box=None, pad_edge=False, title_justify="left", header_style="bold")
    table.add_column("µs")
    shown = [d for d in distributions if d.events]
    names = list(dict.fromkeys(name for d in shown for name in d.percentiles))
    for name in ("events", "min", "avg", "max", "std dev", *names):
        table.add_column(name, justify="right")
    for d in shown:
        figures = (d.min, d.mean, d.max, d.std, *(d.percentiles[name] for name in names))
        table.add_row(d.name, f"{d.events:,}", *(_number(figure) for figure in figures))
    return table


def _histogram(distribution: Distribution) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column(distribution.name)
    table.add_column("events", justify="right")
    table.add_column("")
    most = max((bucket.count for bucket in distribution.buckets), default=0)
    for bucket in distribution.buckets:
        bar = "█" * round(40 * bucket.count / most) if most else ""
        table.add_row(Text(bucket.label), f"{bucket.count:,}", bar or ("▏" if bucket.count else ""))
    return table


def _table(table: Table, rows: int, wide: bool) -> RichTable:
    names = [column.name for column in table.columns] if wide or not table.headline else list(table.headline)
    columns = {column.name: column for column in table.columns}
    total = len(table.key)
    more = f" (the first {rows} of {total})" if total > rows else ""
    shown = RichTable(box=None, pad_edge=False, title=f"{table.name}{more}", title_justify="left", header_style="bold")
    for name in names:
        shown.add_column(name, justify="left" if columns[name].label else "right", overflow="fold")
    for row in range(min(total, rows)):
        shown.add_row(*(Text(_cell(columns[name], row)) for name in names))
    return shown


def _print_stream(console: Console, table: Table) -> None:
    for row in range(len(table.key)):
        console.print("  ".join(f"{column.name}={_cell(column, row)}" for column in table.columns), soft_wrap=True)


def _cell(column: Column, row: int) -> str:
    value: Any = column.values[row].item()
    if column.label:
        return "".join(c if c.isprintable() else "�" for c in str(value))
    return _number(value) if isinstance(value, float) else f"{value:,}"


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.1f}"
