"""The `json` exporter: one document for each probe, replaced with every snapshot."""

from __future__ import annotations

from types import TracebackType

from attrs import frozen

from .. import hook
from ..config.options import option
from ..model import Snapshot
from . import files


@frozen
class JsonConfig:
    """One JSON document."""

    path: str = option("-", help="file to write", allowed=files.PATH_RULE, check=files.check_template)
    force: bool = option(False, help=files.FORCE_HELP)


class JsonExporter:
    """Writes the newest snapshot; to what is open already, such as standard output, only the last one."""

    replaces = True

    def __init__(self, config: JsonConfig) -> None:
        self._config = config

    def __enter__(self) -> JsonExporter:
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
        if not snapshot.final and files.is_open(path):
            return
        from .json_document import pieces  # NumPy, which is imported while programs are attached

        files.write(path, "".join(pieces(snapshot, snapshot.shown, {}, lines=True)), self._config.force)


@hook
def probekit_config() -> type:
    """The options of `[[export]] kind = "json"`."""
    return JsonConfig


@hook
def probekit_export(config: JsonConfig) -> JsonExporter:
    """The exporter."""
    return JsonExporter(config)
