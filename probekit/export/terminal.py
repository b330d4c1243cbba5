"""Snapshots as people read them on a terminal. Imported with the first one: rich takes its time."""

from __future__ import annotations

import io
import sys
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..machine.streams import coloured
from ..model import Column, Distribution, Snapshot, Table
from .document import attached_text
from .safe import visible

_WIDE = 100  # columns, below which figures are as short as can be read
_TIMES = "_us"  # how the name of a column ends that is in microseconds
_LEFT_OUT = ("std dev", "p75", "p95")
_UNITS = (("µs", 1.0), ("ms", 1e3), ("s", 1e6))
_PIPE_WIDTH = 10_000  # a pipe has no width: a row is a line


def events(table: Table) -> list[str]:
    """A line for each streamed event."""
    names = [visible(column.name) for column in table.columns]
    cells = zip(*(_cells(column) for column in table.columns), strict=True)
    return ["  ".join(f"{name}={cell}" for name, cell in zip(names, row, strict=True)) + "\n" for row in cells]


def tables(snapshot: Snapshot, rows: int, wide: bool) -> str:
    """A snapshot's figures, coloured where standard output is a terminal, and as wide as that.

    Args:
        snapshot: What to show.
        rows: At most so many of each table.
        wide: All columns of each table.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    colours: Literal["auto"] | None = "auto" if terminal and coloured(sys.stdout) else None
    console = Console(
        file=io.StringIO(), force_terminal=terminal or None, width=None if terminal else _PIPE_WIDTH, highlight=False,
        markup=False, emoji=False, color_system=colours,
    )  # fmt: skip
    with console.capture() as shown:
        render(console, snapshot, rows, wide)
    return shown.get()


def render(console: Console, snapshot: Snapshot, rows: int, wide: bool) -> None:
    """Prints a snapshot, as fits a console's width."""
    figures = snapshot.figures
    console.print(_text(snapshot.probe, "bold"), _summary(snapshot))
    for unit in dict.fromkeys(d.unit for d in figures.distributions):
        console.print(_percentiles(unit, [d for d in figures.distributions if d.unit == unit], console.width))
    if figures.distributions:
        console.print(_histogram(figures.distributions[0]))
    for table in figures.tables:
        console.print(_table(table, rows, wide, console.width) if len(table.key) else _text(f"{table.name}: none"))
    lost = {cause: count for cause, count in figures.lost.items() if count}
    text = ", ".join(f"{cause} {_figure(count)}" for cause, count in lost.items()) or "nothing"
    console.print(Text.assemble("lost: ", _text(text, "bold red" if lost else "green")))
    attached = ", ".join(f"{a.observation}: {attached_text(a)}" for a in snapshot.attached)
    console.print(_text(f"attached on {snapshot.kernel}: {attached}", "dim"))


def _summary(snapshot: Snapshot) -> Text:
    parts = [f"{snapshot.taken - snapshot.started:.1f} s"]
    for name, value in snapshot.figures.summary.items():
        if isinstance(value, dict):
            parts += [f"{key} {_figure(count)}" for key, count in value.items() if count]
        elif isinstance(value, (int, float)) and value and name.endswith(_TIMES):
            parts.append(f"{name.removesuffix(_TIMES).replace('_', ' ')} {_time(value)}")
        elif isinstance(value, (int, float)) and value and name != "total_events":
            parts.append(f"{name.replace('_', ' ')} {_figure(value)}")
    return _text(" · ".join(parts))


def _percentiles(unit: str, distributions: list[Distribution], width: int) -> RichTable:
    table = RichTable(box=None, pad_edge=False, title_justify="left", header_style="bold")
    narrow = width < _WIDE
    fitting = unit == "us" and narrow
    shown = [d for d in distributions if d.events]
    names = list(dict.fromkeys(name for d in shown for name in d.percentiles))
    figures = [
        {
            "min": d.min,
            "avg": d.mean,
            "max": d.max,
            "std dev": d.std,
            **{name: d.percentiles.get(name) for name in names},
        }
        for d in shown
    ]
    columns = [name for name in ("min", "avg", "max", "std dev", *names) if not narrow or name not in _LEFT_OUT]
    table.add_column("" if fitting else _text("µs" if unit == "us" else unit), no_wrap=True)
    for name in ("events", *columns):
        table.add_column(_text(name), justify="right", no_wrap=True)
    for d, known in zip(shown, figures, strict=True):
        cells = ((_time if fitting else _number)(known[name]) for name in columns)
        table.add_row(_text(d.name), f"{d.events:,}", *cells)
    return table


def _time(microseconds: float | None) -> str:
    """Three digits or so, and the unit that goes with them."""
    if microseconds is None or microseconds != microseconds:
        return "-"
    unit, per = next((unit for unit in _UNITS if microseconds < 999.5 * unit[1]), _UNITS[-1])
    value = microseconds / per
    return f"{value:.{0 if value >= 99.95 else 1}f}{unit}"


def _histogram(distribution: Distribution) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column(_text(distribution.name))
    table.add_column("events", justify="right")
    table.add_column("")
    most = max((bucket.count for bucket in distribution.buckets), default=0)
    for bucket in distribution.buckets:
        bar = "█" * round(40 * bucket.count / most) if most else ""
        table.add_row(_text(bucket.label), f"{bucket.count:,}", bar or ("▏" if bucket.count else ""))
    return table


def _table(table: Table, rows: int, wide: bool, width: int) -> RichTable:
    names = [column.name for column in table.columns] if wide or not table.headline else list(table.headline)
    columns = {column.name: column for column in table.columns}
    total = len(table.key)
    more = f" (the first {rows} of {total})" if total > rows else ""
    shown = RichTable(
        box=None, pad_edge=False, title=_text(f"{table.name}{more}"), title_justify="left", header_style="bold"
    )
    for name in names:
        justify: Literal["left", "right"] = "left" if columns[name].label else "right"
        shown.add_column(_text(_heading(name, width)), justify=justify, overflow="fold")
    for row in zip(*(_cells(columns[name], rows, width) for name in names), strict=True):
        shown.add_row(*map(Text, row))
    return shown


def _heading(name: str, width: int) -> str:
    """A column's name in words, which can be broken between them."""
    bare = name.removesuffix(_TIMES)
    return (bare if bare == name or width < _WIDE else f"{bare}_µs").replace("_", " ")


def _cells(column: Column, rows: int | None = None, width: int = _WIDE) -> list[str]:
    """The first values of a column."""
    values = column.values[:rows].tolist()
    if column.name.endswith(_TIMES) and not column.label and width < _WIDE:
        return [_time(value) for value in values]
    return [visible(str(value)) if column.label else _figure(value) for value in values]


def _figure(value: Any) -> str:
    if value is None or isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else visible(str(value))


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.1f}"


def _text(text: str, style: str = "") -> Text:
    """Text from a plugin, which may have it from outside."""
    return Text(visible(text), style)
