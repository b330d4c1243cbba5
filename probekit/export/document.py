"""A snapshot as plain values, for exporters that write text."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..model import SCHEME, Attached, Distribution, Hindrance, Snapshot, Table
from .safe import well_formed

SCHEMA = "probekit/2"
"""Changes when a name in the document goes or changes its meaning; docs/schema has it as JSON Schema."""


def document(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as JSON values: run, summary, tables by key, distributions by name."""
    tables = {table.name: dict(zip(keys(table), rows(table), strict=True)) for table in snapshot.figures.tables}
    whole = {**before_tables(snapshot), **tables, **after_tables(snapshot, snapshot.figures.tables)}
    return {name: rounded(value) for name, value in whole.items()}


def before_tables(snapshot: Snapshot) -> dict[str, Any]:
    """What the document has before its tables: the run, what was lost, the summary."""
    figures = snapshot.figures
    return {
        "schema": SCHEMA,
        "probe": snapshot.probe,
        "run": {
            "id": snapshot.run.id,
            "host": snapshot.run.host,
            "boot_id": snapshot.run.boot,
            "sequence": snapshot.sequence,
            "final": snapshot.final,
            "began_monotonic_ns": snapshot.run.began,
            "began_unix_ns": snapshot.run.anchor,
        },
        "timestamp": datetime.datetime.fromtimestamp(snapshot.taken, datetime.timezone.utc).isoformat(),
        "duration_seconds": round(snapshot.taken - snapshot.started, 3),
        "kernel": snapshot.kernel,
        "attached": {a.observation: attached_text(a) for a in snapshot.attached},
        "lost": dict(figures.lost),
        **figures.summary,
    }


def after_tables(snapshot: Snapshot, tables: Iterable[Table]) -> dict[str, Any]:
    """What the document has after its tables: the distributions, those of the first one by names of their own, too.

    Args:
        snapshot: What to tell.
        tables: Those that the document has; what their columns are comes last.
    """
    distributions = snapshot.figures.distributions
    told: dict[str, Any] = {}
    if distributions:
        told["histogram"] = {bucket.label: bucket.count for bucket in distributions[0].buckets}
        told["percentiles"] = dict(distributions[0].percentiles)
        told["distributions"] = {d.name: _distribution(d) for d in distributions}
    told["described"] = {
        table.name: {
            column.name: {"kind": column.kind.value, "unit": column.unit, "help": column.help}
            for column in table.columns
        }
        for table in tables
    }
    return told


def rows(table: Table) -> Iterator[dict[str, Any]]:
    """Each row of a table as a dict of plain values."""
    names = [column.name for column in table.columns]
    for values in zip(*(column.values.tolist() for column in table.columns), strict=True):
        yield dict(zip(names, values, strict=True))


def attached_text(attached: Attached) -> str:
    """`fentry tcp_sendmsg_locked`, or that nothing was attached, and whether a privilege would help."""
    if attached.point is None:
        forbidden = next((refusal for refusal in attached.refused if refusal.kind is Hindrance.FORBIDDEN), None)
        return f"not permitted: needs {' and '.join(forbidden.needs)}" if forbidden else "not on this kernel"
    return f"{attached.point.way} {attached.point.target}"


def rounded(value: Any) -> Any:
    """Floats to a thousandth (a nanosecond, in microseconds), not-a-number to null; all the way down."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(entry) for entry in value]
    return value


def keys(table: Table) -> list[str]:
    """The keys, unique: names that differ in bytes that are no text are the same text."""
    texts = [well_formed(str(key)) for key in table.key.tolist()]
    if len(set(texts)) == len(texts):
        return texts
    seen: Counter[str] = Counter()
    for place, text in enumerate(texts):
        seen[text] += 1
        texts[place] = text if seen[text] == 1 else f"{text} ({seen[text]})"
    return texts


def _distribution(distribution: Distribution) -> dict[str, Any]:
    unit = distribution.unit
    return {
        "help": distribution.help,
        "events": distribution.events,
        f"min_{unit}": distribution.min,
        f"avg_{unit}": distribution.mean,
        f"max_{unit}": distribution.max,
        f"std_dev_{unit}": distribution.std,
        "percentiles": dict(distribution.percentiles),
        "histogram": {bucket.label: bucket.count for bucket in distribution.buckets},
        "buckets": _buckets(distribution),
    }


def _buckets(distribution: Distribution) -> dict[str, Any]:
    """The fine histogram, of which two are merged by adding: docs/schema says what its buckets are."""
    used = distribution.counts.nonzero()[0].tolist()
    counts = distribution.counts[used].tolist()
    return {"scheme": SCHEME, "unit": "ns", "counts": dict(zip(map(str, used), counts, strict=True))}
