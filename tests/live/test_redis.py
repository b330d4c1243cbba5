from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Probe, benchmark

REQUESTS = 20_000


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_every_request_and_service_of_redis_benchmark_is_counted(
    probe: Callable[..., Probe], redis: tuple[int, int], host: str, shown: str
) -> None:
    port, server_pid = redis
    running = probe("latency")
    client_pid = benchmark(port, host, REQUESTS, clients=1)
    rows = list(running.result()["connections"].values())

    client = max((r for r in rows if r["destination"] == f"{shown}:{port}"), key=lambda r: int(r["events"]))
    server = max((r for r in rows if r["source"] == f"{shown}:{port}"), key=lambda r: int(r["events"]))
    assert client["events"] == pytest.approx(REQUESTS, rel=0.001)
    assert server["events"] == pytest.approx(REQUESTS, rel=0.001)
    assert (client["side"], client["pid"], client["process"]) == ("client", client_pid, "redis-benchmark")
    assert (server["side"], server["pid"], server["process"]) == ("server", server_pid, "redis-server")
    assert client["source"] == server["destination"]
    assert client["bytes_sent"] == server["bytes_received"] > REQUESTS
    assert client["bytes_received"] == server["bytes_sent"] == 5 * REQUESTS  # "+OK\r\n" each
    assert client["state"] == server["state"] == "closed"
    assert not client["older"]
