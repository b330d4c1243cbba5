"""Helpers for aggregators: histograms, rows. Stage 8.

An aggregator is an object that a probe returns from `probekit_aggregate`; these are the pieces that probes share.
"""

from __future__ import annotations

from ..model.rows import stacked
from .histogram import Histogram, Moments

__all__ = ["Histogram", "Moments", "stacked"]
