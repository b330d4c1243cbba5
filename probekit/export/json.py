"""The `json` exporter: one document for each probe, replaced with every snapshot."""

from __future__ import annotations

import json
from types import TracebackType

from attrs import frozen

from .. import hook
from ..model import Snapshot
from ..options import option
from . import files
from .document import document


@frozen
class JsonConfig:
    """One JSON document."""

    path: str = option("-", help="the file", allowed=files.PATH_RULE, check=files.check_template)


class JsonExporter:
    """Writes the newest snapshot; to standard output only the last one."""

    def __init__(self, config: JsonConfig) -> None:
        self._path = config.path

    def __enter__(self) -> JsonExporter:
        """Looks whether the file can be written."""
        files.prepare(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def export(self, snapshot: Snapshot) -> None:
        """Replaces the file."""
        if snapshot.final or self._path != "-":
            text = json.dumps(document(snapshot), indent=2, ensure_ascii=False)
            files.write(files.place(self._path, snapshot.probe), text + "\n")


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "json"`."""
    return JsonConfig


@hook
def probekit_export(config: JsonConfig) -> JsonExporter:
    """The exporter."""
    return JsonExporter(config)
