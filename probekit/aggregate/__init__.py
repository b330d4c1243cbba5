"""Helpers for aggregators: histograms, rows, tables. Stage 8.

An aggregator is an object that a probe returns from `probekit_aggregate`; these are the pieces that probes share.
"""

from __future__ import annotations

from ..model.rows import chosen, stacked
from .histogram import Histogram, Moments
from .lives import Lives
from .tables import ends_keys, unique_keys

__all__ = ["Histogram", "Lives", "Moments", "chosen", "ends_keys", "stacked", "unique_keys"]
