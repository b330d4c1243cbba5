"""The settings of a run, as attrs classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ..model import Added
from .options import Seconds, option


@frozen
class RunSettings:
    """How long to measure, and how often to look."""

    duration: Seconds | None = option(
        None, help="how long to measure; if not set, until Ctrl-C", allowed="above 0", check=lambda v: v > 0,
        example='"60s"',
    )  # fmt: skip
    interval: Seconds = option(
        Seconds(10.0), help="time between two snapshots", allowed='at least "100ms"', check=lambda v: v >= 0.1
    )


@frozen
class Export:
    """One exporter of the chain.

    Attributes:
        kind: The exporter's name.
        settings: An instance of its configuration class.
        place: Where it stands, for messages.
    """

    kind: str
    settings: Any
    place: str


@frozen
class Settings:
    """A whole configuration.

    Attributes:
        run: The `[run]` table.
        probes: Each probe's settings, an instance of its configuration class.
        aggregates: Aggregators added to these probes, in order.
        exports: The chain, in order.
    """

    run: RunSettings
    probes: Mapping[str, Any]
    aggregates: tuple[Added, ...]
    exports: tuple[Export, ...]
