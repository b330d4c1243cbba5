"""The `jsonl` exporter: a line for each event that a probe streams, and a line for each snapshot."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from attrs import frozen

from .. import hook
from ..errors import ExportError
from ..model import Snapshot
from ..options import option
from . import files
from .document import document, rounded, rows


@frozen
class JsonlConfig:
    """JSON lines."""

    path: str = option("-", help="the file; lines are added to it", allowed=files.PATH_RULE, check=files.check_template)


class JsonlExporter:
    """Adds lines; each has a `record`: event or snapshot."""

    def __init__(self, config: JsonlConfig) -> None:
        self._path = config.path
        self._open: dict[str, TextIO] = {}
        self._files = ExitStack()

    def __enter__(self) -> JsonlExporter:
        """Looks whether the file can be written."""
        files.prepare(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the files."""
        try:
            self._files.close()
        except OSError as failure:
            raise ExportError(f"{self._path}: {failure.strerror}") from failure

    def export(self, snapshot: Snapshot) -> None:
        """Writes the lines, whole ones."""
        lines = []
        if snapshot.figures.stream is not None:
            lines = [{"record": "event", "probe": snapshot.probe, **row} for row in rows(snapshot.figures.stream)]
        lines.append({"record": "snapshot", **document(snapshot)})
        try:
            file = self._file(snapshot.probe)
            file.writelines(json.dumps(rounded(line), ensure_ascii=False) + "\n" for line in lines)
            file.flush()
        except OSError as error:
            path = files.place(self._path, snapshot.probe)
            failed = self._open.pop(path, None)
            if failed is not None:  # what is in its buffer has nowhere to go
                with Path(os.devnull).open("w") as nowhere:
                    os.dup2(nowhere.fileno(), failed.fileno())
                failed.close()
            raise ExportError(f"{path}: {error.strerror}") from error

    def _file(self, probe: str) -> TextIO:
        path = files.place(self._path, probe)
        if path == "-":
            return sys.stdout
        if path not in self._open:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._open[path] = self._files.enter_context(os.fdopen(descriptor, "a", encoding="utf-8"))
        return self._open[path]


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "jsonl"`."""
    return JsonlConfig


@hook
def probekit_export(config: JsonlConfig) -> JsonlExporter:
    """The exporter."""
    return JsonlExporter(config)
