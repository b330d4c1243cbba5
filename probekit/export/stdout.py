"""The `stdout` exporter: what people read when the run ends."""

from __future__ import annotations

from types import TracebackType

from attrs import frozen

from .. import hook
from ..config.options import option
from ..model import Events, Snapshot
from . import files
from .lines import LineFile


@frozen
class StdoutConfig:
    """Tables on standard output."""

    rows: int = option(20, help="how many rows of each table to show", allowed="at least 0", check=lambda v: v >= 0)
    wide: bool = option(False, help="show all columns of each table, not just the main ones")


class StdoutExporter:
    """Prints the last snapshot, and events as they come."""

    def __init__(self, config: StdoutConfig) -> None:
        self._config = config
        self._out = LineFile("-")

    def __enter__(self) -> StdoutExporter:
        """Looks whether there is a standard output."""
        files.prepare("-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def export(self, snapshot: Snapshot) -> None:
        """Prints the tables of the last snapshot."""
        from . import terminal

        if snapshot.final:
            self._out.add([terminal.tables(snapshot, self._config.rows, self._config.wide)], "")

    def stream(self, events: Events) -> None:
        """Prints each event as it comes."""
        from . import terminal

        self._out.add(terminal.events(events.table), "events")


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "stdout"`."""
    return StdoutConfig


@hook
def probekit_export(config: StdoutConfig) -> StdoutExporter:
    """The exporter."""
    return StdoutExporter(config)
