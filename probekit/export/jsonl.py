"""The `jsonl` exporter: a line for each event that a probe streams, and a line for each snapshot."""

from __future__ import annotations

from types import TracebackType

from attrs import frozen

from .. import hook
from ..config.options import option
from ..model import Events, Snapshot
from . import files
from .document import rounded, rows
from .lines import LineFile
from .safe import json_text


@frozen
class JsonlConfig:
    """JSON lines."""

    path: str = option("-", help="file to append lines to", allowed=files.PATH_RULE, check=files.check_template)
    force: bool = option(False, help=files.FORCE_HELP)


class JsonlExporter:
    """Adds lines; each has a `record`: event or snapshot."""

    def __init__(self, config: JsonlConfig) -> None:
        self._config = config
        self._files: dict[str, LineFile] = {}

    def __enter__(self) -> JsonlExporter:
        """Looks whether the file can be written."""
        files.prepare(self._config.path, self._config.force)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def export(self, snapshot: Snapshot) -> None:
        """Writes a line."""
        from .json_document import pieces  # NumPy, which is imported while programs are attached

        line = "".join(pieces(snapshot, snapshot.figures.latest, {"record": "snapshot"}, lines=False))
        self._file(snapshot.probe).add([line])

    def stream(self, events: Events) -> None:
        """Writes a line for each event."""
        told = ({"record": "event", "probe": events.probe, **row} for row in rows(events.table))
        self._file(events.probe).add([f"{json_text(rounded(event))}\n" for event in told])

    def _file(self, probe: str) -> LineFile:
        path = files.place(self._config.path, probe)
        return self._files.setdefault(path, LineFile(path, self._config.force))


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "jsonl"`."""
    return JsonlConfig


@hook
def probekit_export(config: JsonlConfig) -> JsonlExporter:
    """The exporter."""
    return JsonlExporter(config)
