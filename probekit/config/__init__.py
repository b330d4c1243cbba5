"""TOML to attrs classes. Stage 1.

A file and the command line become one document, and that becomes settings.
"""

from __future__ import annotations

from .convert import suggestion
from .document import Document, assign, overrides, read
from .settings import Export, RunSettings, Settings
from .structure import TypeOf, structure

__all__ = [
    "Document", "Export", "RunSettings", "Settings", "TypeOf", "assign", "overrides", "read", "structure",
    "suggestion",
]  # fmt: skip
