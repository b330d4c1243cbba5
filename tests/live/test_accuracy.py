from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable

import pytest

from .conftest import Probe

DELAY = 0.005
ROUNDS = 300


def serve(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while connection.recv(64):
            time.sleep(DELAY)
            connection.sendall(b"answer")


def test_the_median_is_what_the_client_measures_itself(probe: Callable[..., Probe]) -> None:
    running = probe("latency")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        measured = []
        with socket.create_connection(server.getsockname()) as client:
            own = "{}:{}".format(*client.getsockname())
            for _ in range(ROUNDS):
                began = time.perf_counter_ns()
                client.sendall(b"request")
                client.recv(64)
                measured.append((time.perf_counter_ns() - began) / 1000)
    result = running.result()
    row = next(r for r in result["connections"].values() if r["source"] == own)
    assert row["events"] == ROUNDS
    assert row["min_latency_us"] == pytest.approx(min(measured), rel=0.02)
    # a client that others keep off the CPU looks at its clock late: half of its times are not above the truth's
    half = statistics.fmean(sorted(measured)[: ROUNDS // 2])
    assert half * 0.98 <= row["avg_latency_us"] <= statistics.fmean(measured)
    assert statistics.median(measured) * 0.98 <= row["max_latency_us"] <= max(measured)
    if max(measured) < 1.1 * min(measured):
        assert row["avg_latency_us"] == pytest.approx(statistics.fmean(measured), rel=0.02)
        assert row["max_latency_us"] == pytest.approx(max(measured), rel=0.02)
        assert row["std_dev_us"] == pytest.approx(statistics.pstdev(measured), rel=0.1, abs=20)

    request, wire, wakeup = (result["distributions"][name] for name in ("request", "wire", "wakeup"))
    if request["events"] == ROUNDS:  # nobody else's are among them
        assert request["percentiles"]["p50"] == pytest.approx(statistics.median(measured), rel=0.02)
        assert wire["events"] == wakeup["events"] == request["events"]
        assert wire["avg_us"] + wakeup["avg_us"] == pytest.approx(request["avg_us"], rel=0.02)
    assert row["avg_wire_us"] + row["avg_wakeup_us"] == pytest.approx(row["avg_latency_us"], rel=0.02)
    assert row["avg_wire_us"] > DELAY * 1e6
