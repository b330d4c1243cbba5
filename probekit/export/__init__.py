"""Snapshots to files, streams and terminals. Stage 9. Each exporter is a plugin of its own and knows no probe.

What this module exports are the pieces that exporters share.
"""

from __future__ import annotations

from .document import document, rounded, rows
from .files import PATH_RULE, check_template, place, prepare, write
from .safe import json_text, visible

__all__ = [
    "PATH_RULE", "check_template", "document", "json_text", "place", "prepare", "rounded", "rows", "visible", "write",
]  # fmt: skip
