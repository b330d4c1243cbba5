"""Traps of who it was: processes, threads, forks, and whatever runs when a packet comes in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from .conftest import Pair, live
from .objects import NOTHING
from .peer import Peer


def test_the_process_in_softirq_is_not_the_owner(pair: Callable[..., Pair], peer: Peer) -> None:
    """On loopback each end's data arrives while the other end's process is the current one."""
    ends = pair()
    for _ in range(3):
        ends.client.send(b"?")
        peer.run("s[0].recv(9); s[0].send(b'!')", ends.server)
        ends.client.recv(9)
    assert ends.events() == (3, 3)
    client, server = ends.row("client"), ends.row("server")
    assert (client["pid"], client["process"]) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert (server["pid"], server["process"]) == (peer.pid, "peer")


def test_a_thread_other_than_the_main_one(pair: Callable[..., Pair]) -> None:
    ends, threads = pair(), []

    def work() -> None:
        threads.append(threading.get_native_id())
        ends.exchange(3)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert threads[0] != os.getpid()
    assert ends.events() == (3, 3)
    assert ends.row("client")["pid"] == ends.row("server")["pid"] == os.getpid()


FORK = """
import os
from pathlib import Path
child = os.fork()
if not child:
    try:
        Path("/proc/self/comm").write_text("child")
        s[0].send(b"?")
        s[0].recv(9)
    finally:
        os._exit(0)
result = child
"""


def test_a_process_that_forks_with_an_open_socket(pair: Callable[..., Pair], peer: Peer) -> None:
    ends = pair()
    peer.run("s[0].send(b'?')", ends.client)
    ends.server.recv(9)
    ends.server.send(b"!")
    peer.run("s[0].recv(9)", ends.client)
    client = ends.row("client")
    assert (client["pid"], client["process"], client["events"]) == (peer.pid, "peer", 1)

    child = peer.run(FORK, ends.client)
    assert ends.server.recv(9) == b"?"
    ends.server.send(b"!")
    peer.run(f"import os; os.waitpid({child}, 0)")
    client = ends.row("client")
    assert (client["pid"], client["process"], client["events"]) == (child, "child", 2)

    ends.exchange()
    assert (ends.row("client")["pid"], ends.row("client")["events"]) == (os.getpid(), 3)


def test_exchanges_that_are_sampled_out(way: str, peer: Peer) -> None:
    """Their connections are in use all the same, by whoever uses them."""
    with live(way, **NOTHING) as probe:
        ends = Pair(probe)
        client, (server,) = probe.client(ends.port), (set(probe.slots(ends.port)) - {probe.client(ends.port)})
        for owner in (os.getpid(), peer.pid):
            before = [int(probe.records["used"][end]) for end in (client, server)]
            if owner == peer.pid:
                peer.run("s[0].send(b'?'); s[1].recv(9); s[1].send(b'!'); s[0].recv(9)", ends.client, ends.server)
            else:
                ends.exchange()
            assert [probe.records["pid"][end] for end in (client, server)] == [owner, owner]
            after = [int(probe.records["used"][end]) for end in (client, server)]
            assert all(0 < (now - then) % 2**32 < 2**31 for then, now in zip(before, after, strict=True))
        assert ends.events() == (0, 0)
        ends.close()
