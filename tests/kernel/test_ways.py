"""Each way is taken for all that it can observe."""

from __future__ import annotations

from .conftest import LiveProbe


def test_the_way_is_the_one_asked_for(probe: LiveProbe, way: str) -> None:
    needed = {name: point for name, point in probe.attached.items() if name != "sendfile"}
    assert set(needed) == {"send", "receive", "arrival", "state"}
    for name, point in needed.items():
        assert point is not None
        assert point.way == ("tracepoint" if name == "state" else way)
