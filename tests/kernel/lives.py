"""Connections that end in every way, each with what a tracker has to say of its two ends."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections import Counter
from typing import Any

from .netlab import Namespace, delayed, running

RESET = struct.pack("ii", 1, 0)
KINDS = ("client", "server", "client resets", "server resets", "refused", "both", "times out")
End = tuple[str, str, str, str, str, int]
"""Source, destination, side, end, closed_by, pid."""


def live_and_die(here: Namespace, there: Namespace, times: dict[str, int]) -> list[End]:
    """Opens and closes connections in `here`, some to `there`; what becomes of each end in `here`.

    Args:
        here: The namespace that is looked at.
        there: Where nobody answers but for simultaneous closes.
        times: How many connections of each of KINDS.
    """
    here.sysctl(tcp_syn_retries=1)
    ends: list[End] = []
    with running(here.popen("closer.py", "127.0.0.1", "512")) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for kind in KINDS[:4]:  # `ip netns exec` becomes the program that it runs
            ends += here.do(lambda: [end for _ in range(times[kind]) for end in _close(port, kind, server.pid)])  # noqa: B023
        ends += here.do(lambda: _refused(times["refused"]))
        with delayed(here, there, 0.25) as (_, address):
            ends += _both(here, there, address, times["both"])
            ends += _time_out(here, "10.97.0.9", times["times out"])
    return ends


def _names(client: socket.socket) -> tuple[str, str]:
    return "{}:{}".format(*client.getsockname()), "{}:{}".format(*client.getpeername())


def _close(port: int, kind: str, server: int) -> list[End]:
    order = {"client": b"c", "server": b"s", "client resets": b"c", "server resets": b"r"}[kind]
    with socket.socket() as client:
        client.connect(("127.0.0.1", port))
        us, them = _names(client)
        client.send(order)
        if kind == "client resets":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif kind != "client":
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    mine, theirs = {
        "client": (("fin", "local"), ("fin", "remote")),
        "server": (("fin", "remote"), ("fin", "local")),
        "client resets": (("rst_sent", "local"), ("rst_received", "remote")),
        "server resets": (("rst_received", "remote"), ("rst_sent", "local")),
    }[kind]
    return [(us, them, "client", *mine, os.getpid()), (them, us, "server", *theirs, server)]


def _refused(times: int) -> list[End]:
    ends: list[End] = []
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    target = nobody.getsockname()
    for _ in range(times):
        with socket.socket() as client:
            client.bind(("127.0.0.1", 0))
            assert client.connect_ex(target) != 0
            source, destination = "{}:{}".format(*client.getsockname()), "{}:{}".format(*target)
            ends.append((source, destination, "client", "refused", "remote", os.getpid()))
    nobody.close()
    return ends


def _both(here: Namespace, there: Namespace, address: str, times: int) -> list[End]:
    """Each end closes before the other's FIN has come: there is a quarter of a second for that."""
    with there.listen(address) as listener:
        clients = [here.socket() for _ in range(times)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        peers = {peer.getpeername(): peer for peer in (listener.accept()[0] for _ in clients)}
    ends = [(*_names(client), "client", "fin", "both", os.getpid()) for client in clients]
    for client in clients:
        peer = peers[client.getsockname()]
        client.close()
        peer.close()
    return ends


def _time_out(here: Namespace, address: str, times: int) -> list[End]:
    ends: list[End] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(times):
            client = here.socket()
            client.setblocking(False)
            client.connect_ex((address, 9))
            source = "{}:{}".format(*client.getsockname())
            ends.append((source, f"{address}:9", "client", "timeout", "nobody", os.getpid()))
            selector.register(client, selectors.EVENT_WRITE)
        left = times
        while left:
            ready = selector.select(30)
            assert ready, "the connects did not time out"
            for key, _ in ready:
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
                left -= 1
    return ends


def differences(result: Any, ends: list[End]) -> list[str]:
    """What a tracker's output has otherwise; ports are used again, so that ends of the same name are counted."""
    names = ("source", "destination", "side", "end", "closed_by", "pid")
    found = Counter(tuple(row[name] for name in names) for row in result["connections"].values())
    expected: Counter[tuple[Any, ...]] = Counter(ends)
    return [f"lacks {n} {end}" for end, n in (expected - found).items()] + [
        f"has {n} {end} too many" for end, n in (found - expected).items()
    ]


KERNELS = ("idle_us", "srtt_us", "min_rtt_us")
"""Times that the kernel counts from when it likes."""


def impossible(result: Any) -> list[str]:
    """Times of a tracker's rows that are below 0, longer than a life, or longer than the run."""
    run = result["duration_seconds"] * 1e6 + 1
    found = []
    for key, row in result["connections"].items():
        life = row["lifetime_us"] + 1
        for name, value in row.items():
            if not name.endswith("_us") or value is None or (name in KERNELS and (row["older"] or name != "idle_us")):
                continue
            part = name not in ("accept_wait_us", "handshake_us") or (row["side"], name) == ("client", "handshake_us")
            if not 0 <= value <= min(run, life if part else run):
                found.append(f"{key}: {name} {value} of {life} in {run}")
    return found


def assert_balanced(result: Any, before: dict[str, int], after: dict[str, int]) -> None:
    """What was opened has closed or is open, and the kernel's own counters say the same."""
    assert impossible(result) == []
    grown = Counter({name: after[name] - before[name] for name in after})
    assert not any(result["lost"].values()), result["lost"]
    assert result["opened"] == result["closed"] + result["still_open"] - result["already_open"]
    assert result["opened_active"] == grown["ActiveOpens"]
    assert result["opened_passive"] == grown["PassiveOpens"]
    failed = sum(result["ends"][end] for end in ("timeout", "refused", "unreachable", "aborted"))
    assert failed == grown["AttemptFails"]
    established = [row for row in result["connections"].values() if row["state"] in ("established", "close_wait")]
    assert len(established) == after["CurrEstab"]
