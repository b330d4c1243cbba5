"""Traps of sockets: which they are, whose other end is here too, and those that are none of ours."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable

import pytest

from probekit_latency.values import HIGH_BITS

from .conftest import WAYS, LiveProbe, Pair, live
from .peer import Peer

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER so that close sends a reset: no TIME_WAIT, the socket is freed at once."""

TICK = time.clock_getres(6)
"""CLOCK_MONOTONIC_COARSE's: seconds between two readings of the clock that the kernel keeps for when data was sent."""


def test_a_socket_closed_with_a_request_open_and_its_address_reused(
    pair: Callable[..., Pair], probe: LiveProbe
) -> None:
    ends, unanswered = pair(), probe.result()["unanswered"]
    ends.exchange(3)
    ends.client.send(b"?")
    before = {probe.records["socket"][slot] for slot in probe.slots(ends.port)}
    assert len(before) == 2
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    ends.close()
    assert len(probe.slots(ends.port)) == 0
    assert probe.result()["unanswered"] > unanswered

    reused = 0
    for _ in range(200):
        later = pair()
        mine = {probe.records["socket"][slot] for slot in probe.slots(later.port)}
        later.server.send(b"hello")
        later.client.recv(9)
        assert later.events() == (0, 0)  # the request of its forerunner is not answered by that
        reused += len(mine & before)
        later.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        later.close()
        before |= mine
        if reused >= 2:
            break
    assert reused >= 2, "the kernel used no address again"
    assert ends.events() == (3, 3)


def test_an_address_reused_whose_forerunners_end_was_missed(pair: Callable[..., Pair], probe: LiveProbe) -> None:
    """The record of a socket that is gone, put where the kernel's next socket will look for its own."""
    first = pair()
    first.exchange()
    numbers = probe.slots(first.port)
    left = {int(probe.records["socket"][n]): (n, probe.records[n].copy()) for n in numbers}
    first.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    first.close()
    reused, made = 0, []
    for _ in range(100):
        for number, record in left.values():
            if not probe.records["socket"][number]:
                record["start"], record["events_received_high"] = 1000, 0
                probe.records[number] = record
        later = pair()
        slots = probe.slots(later.port)
        reused += sum(int(probe.records["socket"][slot]) in left for slot in slots)
        later.server.send(b"hello")
        later.client.recv(9)
        later.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        later.close()
        made.append(later)
        if reused >= 16:  # whether a stream goes on behind a place in another one is a matter of luck
            break
    assert reused, "the kernel used no address again"
    result = probe.result()
    assert [later.events(result) for later in made] == [(0, 0)] * len(made)


def test_loopback_both_ends(alone: LiveProbe) -> None:
    ends = Pair(alone)
    ends.exchange(5)
    ends.close()
    alone.detach()
    client, server = ends.row("client"), ends.row("server")
    assert (client["source"], client["destination"]) == (server["destination"], server["source"])
    assert (client["events"], server["events"]) == (5, 5)
    result = alone.result()
    rows = result["connections"].values()
    sums = {side: sum(row["events"] for row in rows if row["side"] == side) for side in ("client", "server")}
    measured = result["event_type_breakdown"]
    assert (result["measure"], result["total_events"]) == ("request", measured["request"])
    if not alone.strangers:
        assert measured == {"request": sums["client"], "service": sums["server"]}


def test_ports_in_host_and_in_network_order(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange()
    client, server = ends.row("client"), ends.row("server")
    assert client["source"] == "{}:{}".format(*ends.client.getsockname())
    assert client["destination"] == "{}:{}".format(*ends.client.getpeername())
    assert server["source"] == "{}:{}".format(*ends.server.getsockname())
    assert server["destination"] == "{}:{}".format(*ends.server.getpeername())


def test_v4_mapped(pair: Callable[..., Pair]) -> None:
    ends = pair(family=socket.AF_INET6, host="::ffff:127.0.0.1")
    assert ends.client.getsockname()[0] == "::ffff:127.0.0.1"
    ends.exchange()
    assert ends.events() == (1, 1)
    assert ends.row("client")["source"] == f"127.0.0.1:{ends.port}"
    assert ends.row("client")["destination"] == f"127.0.0.1:{ends.server_port}"
    assert ends.row("server")["source"] == f"127.0.0.1:{ends.server_port}"


def test_ipv6(pair: Callable[..., Pair]) -> None:
    ends = pair(family=socket.AF_INET6, host="::1")
    ends.exchange()
    assert ends.events() == (1, 1)
    assert ends.row("client")["source"] == f"[::1]:{ends.port}"
    assert ends.row("server")["destination"] == f"[::1]:{ends.port}"


OTHERS = """
import socket
for one, other in (socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)):
    for _ in range(3):
        one.send(b"?"); other.recv(9); other.send(b"!"); one.recv(9)
    one.close(); other.close()
ports = []
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as other:
        one.bind((host, 0)); other.bind((host, 0))
        one.connect(other.getsockname()); other.connect(one.getsockname())
        for _ in range(3):
            one.send(b"?"); other.recv(9); other.send(b"!"); one.recv(9)
        ports += [one.getsockname()[1], other.getsockname()[1]]
        kept.append((one.dup(), other.dup()))
result = ports
"""


def test_unix_sockets_and_udp_left_out(probe: LiveProbe) -> None:
    with Peer() as silent:
        ports = silent.run(f"import builtins; builtins.kept = []\n{OTHERS}")
        assert [len(probe.slots(port)) for port in ports] == [0, 0, 0, 0]
        live = probe.records[probe.records["socket"] != 0]
        assert not (live["pid"] == silent.pid).any()
        assert not (live["addresses"]["local_port"] == 0).any()  # what is no TCP socket has none where it is read
        assert not [row for row in probe.result()["connections"].values() if row["pid"] == silent.pid]


def test_a_connection_older_than_the_probe(probe: LiveProbe, older: list[Pair]) -> None:
    ends = older[WAYS.index(probe.way)]
    ends.probe = probe
    before = probe.result()["begun_before"]
    ends.exchange(5)
    assert probe.result()["begun_before"] > before
    client, server = ends.row("client"), ends.row("server")
    assert (client["side"], client["older"], client["events"]) == ("client", True, 5)
    assert (server["side"], server["older"], server["events"]) == ("server", True, 4)  # its first arrival was not seen


def test_an_exchange_older_than_the_probe(way: str) -> None:
    with contextlib.closing(Pair(None)) as ends:
        time.sleep(3 * TICK)  # for the kernel's figures to tell what was sent last
        ends.request()
        with live(way) as probe:
            ends.probe = probe
            ends.exchange()  # the rest of the request, and the response to it
            assert ends.events() == (0, 0)
            ends.exchange()
            assert ends.events() == (1, 1)


def test_a_connection_of_the_probes_time_is_not_older(pair: Callable[..., Pair]) -> None:
    ends = pair()
    ends.exchange()
    assert (ends.row("client")["older"], ends.row("server")["older"]) == (False, False)


def test_mptcp(probe: LiveProbe) -> None:
    protocol = 262
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    except OSError as error:
        # EPROTONOSUPPORT, EINVAL: built without; ENOPROTOOPT: the sysctl net.mptcp.enabled
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOPROTOOPT):
            raise
        pytest.skip(f"not on this kernel: an MPTCP socket: {error.strerror}")
    with listener, socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        port = client.getsockname()[1]
        with server:
            for _ in range(3):
                client.send(b"?")
                assert server.recv(9) == b"?"
                server.send(b"!")
                assert client.recv(9) == b"!"
            live = probe.slots(port)
            assert len(live) == 2  # a subflow at each end, and no record for the sockets above them
            assert [int(probe.records["events_received_high"][place]) >> HIGH_BITS for place in live] == [0, 0]
            assert probe.rows(port) == []
