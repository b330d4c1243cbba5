from __future__ import annotations

import errno
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probekit.testing import Harnesses
from tests.live.conftest import Probe, starting

from .lives import KINDS, assert_balanced, differences, live_and_die
from .netlab import Namespace, delayed

TIMES = dict(zip(KINDS, (40, 40, 20, 20, 20, 10, 10), strict=True))


Start = Callable[..., Probe]


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path) as start:
        yield start


@pytest.fixture
def here() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def there() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def tracker(start: Start, namespace: Namespace, *arguments: str) -> Probe:
    """The tracker, restricted to a namespace; words are probes that run beside it, and options."""
    return start("conntrack", *arguments, "--set", f"probe.conntrack.netns={namespace.path}")


def test_every_end_has_its_side_its_owner_and_who_closed_first(
    probe: Start,
    here: Namespace,
    there: Namespace,
) -> None:
    running = tracker(probe, here)
    before = here.tcp_counters()
    ends = live_and_die(here, there, TIMES)
    after = here.tcp_counters()
    result = running.result()
    assert differences(result, ends) == []
    assert_balanced(result, before, after)


def row_of(result: Any, source: tuple[str, int]) -> Any:
    """The only row of a socket."""
    (row,) = (row for row in result["connections"].values() if row["source"] == "{}:{}".format(*source))
    return row


def pair(namespace: Namespace, backlog: int = 16) -> tuple[socket.socket, socket.socket]:
    with namespace.listen(backlog=backlog) as listener:
        client = namespace.socket()
        client.connect(listener.getsockname())
        return client, listener.accept()[0]


def test_a_connection_that_was_open_already_is_found_with_its_owner_and_its_figures(
    probe: Start,
    here: Namespace,
) -> None:
    client, server = pair(here)
    client.send(b"x" * 1000)
    server.recv(1000)
    running = tracker(probe, here)
    client.send(b"y" * 500)
    server.recv(500)
    result = running.result()
    names = client.getsockname(), server.getsockname()
    client.close()
    server.close()
    assert (result["already_open"], result["still_open"], result["opened"]) == (2, 2, 0)
    mine, theirs = (row_of(result, name) for name in names)
    assert (mine["side"], theirs["side"]) == ("client", "server")
    assert (mine["older"], theirs["older"]) == (True, True)
    assert {mine["pid"], theirs["pid"]} == {os.getpid()}
    assert (mine["state"], mine["end"], mine["closed_by"]) == ("established", "open", "nobody")
    assert (mine["bytes_acked"], theirs["bytes_received"]) == (1501, 1500)  # a SYN is acknowledged like a byte
    assert mine["handshake_us"] is None
    assert mine["id"] == theirs["id"] != ""


def test_a_connection_that_opens_when_the_run_has_ended_is_none_of_it(
    probe_harness: Harnesses, here: Namespace
) -> None:
    before = pair(here)
    with probe_harness("conntrack", netns=str(here.path)).live() as live:
        live.close()
        before[0].send(b"x" * 700)
        after = pair(here)
        figures = live.snapshot().figures
    for end in (*before, *after):
        end.close()
    assert (figures.summary["already_open"], figures.summary["opened"]) == (2, 0)
    sent = next(column.values for column in figures.tables[0].columns if column.name == "bytes_acked")
    assert sorted(sent.tolist()) == [0, 701]  # what is there is brought up to date


def test_a_connection_that_was_open_already_ends_in_the_same_way_as_others(
    probe: Start,
    here: Namespace,
) -> None:
    client, server = pair(here)
    names = client.getsockname(), server.getsockname()
    running = tracker(probe, here)
    server.close()
    client.close()
    result = running.result()
    mine, theirs = (row_of(result, name) for name in names)
    assert (mine["end"], mine["closed_by"], theirs["end"], theirs["closed_by"]) == ("fin", "remote", "fin", "local")
    assert result["already_open"] == result["closed"] == 2


def test_latency_and_conntrack_call_a_connection_by_the_same_id(probe: Start, here: Namespace) -> None:
    older = pair(here)
    running = tracker(probe, here, "latency")
    younger = pair(here)
    for client, server in (older, younger):
        exchange(client, server)
    result = running.result()
    latency = json.loads(running.path.with_name("latency.json").read_text())
    ids = set()
    for end in (*older, *younger):
        mine, theirs = row_of(result, end.getsockname()), row_of(latency, end.getsockname())
        end.close()
        assert mine["id"] == theirs["id"] != ""
        assert mine["requests"] == theirs["events"] > 0
        ids.add(mine["id"])
    assert len(ids) == 2


def established(end: socket.socket) -> None:
    """Waits until a connect has succeeded, and has the socket block again."""
    assert select.select([], [end], [], 20)[1] == [end]
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    end.settimeout(20)


def exchange(client: socket.socket, server: socket.socket, times: int = 3) -> None:
    for _ in range(times):
        client.send(b"?")
        server.recv(1)
        server.send(b"!")
        client.recv(1)


def connect_to_itself(namespace: Namespace) -> socket.socket:
    end = namespace.socket()
    end.bind(("127.0.0.1", 0))
    end.connect(end.getsockname())
    return end


@pytest.mark.parametrize("older", [False, True])
def test_a_socket_that_is_connected_to_itself_is_a_client_to_all_probes(
    probe: Start, here: Namespace, older: bool
) -> None:
    before = [connect_to_itself(here)] if older else []
    running = tracker(probe, here, "latency")
    end = before[0] if older else connect_to_itself(here)
    for _ in range(3):
        end.send(b"?")
        assert end.recv(1) == b"?"
    result = running.result()
    latency = json.loads(running.path.with_name("latency.json").read_text())
    row, measured = row_of(result, end.getsockname()), row_of(latency, end.getsockname())
    end.close()
    assert (row["source"], row["side"]) == (row["destination"], "client")
    assert (measured["side"], measured["id"], measured["events"]) == ("client", row["id"], 3)
    assert row["requests"] == 3
    assert row["handshake_us"] is None


@pytest.mark.parametrize("older", [False, True])
def test_both_ends_of_a_connection_that_both_opened_are_clients_of_one_id(
    probe: Start, here: Namespace, there: Namespace, older: bool
) -> None:
    ends = (here.socket(), there.socket())
    with delayed(here, there, 0.05) as addresses:
        for end, address in zip(ends, addresses, strict=True):
            end.bind((address, 7777))
        running = None if older else probe("conntrack", "latency")
        for end, address in zip(ends, reversed(addresses), strict=True):
            end.setblocking(False)
            end.connect_ex((address, 7777))
        for end in ends:
            established(end)
        running = running or probe("conntrack", "latency")
        exchange(*ends)
        result = running.result()
    latency = json.loads(running.path.with_name("latency.json").read_text())
    tracked = [row_of(result, end.getsockname()) for end in ends]
    measured = [row_of(latency, end.getsockname()) for end in ends]
    for end in ends:
        end.close()
    assert {row["side"] for row in tracked + measured} == {"client"}
    assert len({row["id"] for row in tracked + measured}) == 1
    assert [(row["handshake_us"], row["requests"]) for row in tracked] == [(None, None)] * 2


def test_a_syn_that_had_to_be_sent_again_is_counted_and_the_time_is_all_of_it(
    probe: Start,
    here: Namespace,
    there: Namespace,
) -> None:
    with delayed(here, there, 0.01) as (_, address), there.listen(address) as listener:
        drop = ["nft", "add rule ip t in tcp flags syn numgen inc mod 2 0 drop"]
        for line in (
            ["nft", "add table ip t"],
            ["nft", "add chain ip t in { type filter hook input priority 0; }"],
            drop,
        ):
            subprocess.run(["ip", "netns", "exec", there.name, *line], check=True)
        running = tracker(probe, here)
        client = here.socket()
        client.connect(listener.getsockname())
        result = running.result()
    row = row_of(result, client.getsockname())
    client.close()
    assert row["syn_retransmits"] == 1
    assert row["handshake_us"] > 1e6
    assert row["syn_sent_us"] == pytest.approx(row["handshake_us"], rel=0.01)


def test_a_syn_ack_that_had_to_be_sent_again_is_counted_and_the_time_is_all_of_it(
    probe: Start,
    here: Namespace,
    there: Namespace,
) -> None:
    with delayed(here, there, 0.01) as (_, address), there.listen(address) as listener:
        rule = "add rule ip t in tcp flags syn,ack / syn,ack numgen inc mod 2 0 drop"
        for line in ("add table ip t", "add chain ip t in { type filter hook input priority 0; }", rule):
            subprocess.run(["ip", "netns", "exec", here.name, "nft", line], check=True)
        running = tracker(probe, there)
        client = here.socket()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        result = running.result()
    (row,) = (row for row in result["connections"].values() if row["side"] == "server")
    client.close()
    server.close()
    assert row["syn_retransmits"] >= 1
    assert row["handshake_us"] > 0.9e6


def shaken(result: Any, side: str) -> list[float | None]:
    """Handshakes of one side."""
    return [row["handshake_us"] for row in result["connections"].values() if row["side"] == side]


def cookies_received(namespace: Namespace) -> int:
    lines = namespace.do(lambda: Path("/proc/thread-self/net/netstat").read_text()).splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("SyncookiesRecv")])


@pytest.mark.parametrize("timestamps", [0, 1])
@pytest.mark.parametrize("cookies", [True, False])
def test_the_kernel_keeps_nothing_of_a_handshake_with_a_syn_cookie(
    probe: Start, here: Namespace, cookies: bool, timestamps: int
) -> None:
    here.sysctl(tcp_syncookies=2 if cookies else 1, tcp_timestamps=timestamps)
    running = tracker(probe, here)
    with here.listen() as listener:
        for _ in range(30):
            with here.socket() as client:
                client.connect(listener.getsockname())
                listener.accept()[0].close()
    result = running.result()
    assert cookies_received(here) == 30 * cookies
    assert len([took for took in shaken(result, "client") if took]) == 30
    assert [took is None for took in shaken(result, "server")] == [cookies] * 30
    assert result["distributions"]["handshake_server"]["events"] == 30 * (not cookies)


def test_a_cookie_that_is_answered_late_is_told_from_a_slow_handshake(
    probe: Start, here: Namespace, there: Namespace
) -> None:
    with delayed(here, there, 0.01) as (_, address), there.listen(address) as listener:
        there.sysctl(tcp_syncookies=2)
        running = tracker(probe, there)
        for cookies in (2, 1):
            there.sysctl(tcp_syncookies=cookies)
            for _ in range(10):
                with here.socket() as client:
                    client.connect(listener.getsockname())
                    listener.accept()[0].close()
        result = running.result()
    assert cookies_received(there) == 10
    known = [took for took in shaken(result, "server") if took is not None]
    assert len(known) == 10
    assert min(known) >= 20e3


@pytest.mark.parametrize("silent", [False, True])
def test_a_deferred_accept_is_the_clients_waiting_and_no_handshake(probe: Start, here: Namespace, silent: bool) -> None:
    running = tracker(probe, here)
    with here.listen() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1 if silent else 30)
        clients = [here.socket() for _ in range(3)]
        for client in clients:
            client.connect(listener.getsockname())
        if not silent:  # otherwise the kernel asks once more, and gives the connection to the server all the same
            time.sleep(0.2)
            for client in clients:
                client.send(b"?")
        servers = [listener.accept()[0] for _ in clients]
    result = running.result()
    for end in (*clients, *servers):
        end.close()
    assert shaken(result, "server") == [None] * 3
    assert result["distributions"]["handshake_server"]["events"] == 0
    assert all(took is not None for took in shaken(result, "client"))


FAST_OPEN = 0x1 | 0x2 | 0x4 | 0x200 | 0x400  # both sides, all listeners, without cookies
ACK_ONLY = "tcp flags & (syn|ack|rst) == ack drop"


@pytest.mark.parametrize("lost", [True, False])
def test_a_connection_that_is_accepted_before_it_is_established_has_waited_for_nothing(
    probe: Start, here: Namespace, there: Namespace, lost: bool
) -> None:
    here.sysctl(tcp_fastopen=FAST_OPEN)
    there.sysctl(tcp_fastopen=FAST_OPEN)
    with delayed(here, there, 0.05) as (_, address), there.listen(address) as listener:
        for line in ("add table ip t", "add chain ip t in { type filter hook input priority 0; }"):
            subprocess.run(["ip", "netns", "exec", there.name, "nft", line], check=True)
        if lost:
            subprocess.run(["ip", "netns", "exec", there.name, "nft", f"add rule ip t in {ACK_ONLY}"], check=True)
        running = tracker(probe, there)
        with here.socket() as client:
            client.sendto(b"?", socket.MSG_FASTOPEN, listener.getsockname())
            server, _ = listener.accept()
            assert server.recv(1) == b"?"
            if not lost:
                server.send(b"!")
                assert client.recv(1) == b"!"
            result = running.result()
        server.close()
    (row,) = result["connections"].values()
    assert (row["side"], row["state"]) == ("server", "syn_recv" if lost else "established")
    assert row["accept_wait_us"] is None
    assert row["handshake_us"] is None
    assert result["distributions"]["accept_wait"]["events"] == 0
    assert result["distributions"]["handshake_server"]["events"] == 0


def test_data_that_comes_after_a_close_is_answered_by_a_reset_when_the_socket_is_gone(
    probe: Start,
    here: Namespace,
    there: Namespace,
) -> None:
    with delayed(here, there, 0.05) as (_, address), there.listen(address) as listener:
        running = tracker(probe, here)
        client = here.socket()
        client.connect(listener.getsockname())
        name = client.getsockname()
        server, _ = listener.accept()
        client.close()
        server.send(b"before the FIN has come")
        time.sleep(0.5)
        server.close()
        result = running.result()
    row = row_of(result, name)
    assert (row["end"], row["closed_by"], row["time_wait"]) == ("rst_sent", "local", False)
    assert result["ends"]["rst_sent"] == 1


def test_a_connect_that_finds_no_port_has_failed_and_was_not_opened(
    probe: Start,
    here: Namespace,
) -> None:
    here.sysctl(ip_local_port_range="20000 20001")
    running = tracker(probe, here)
    before = here.tcp_counters()
    with here.listen() as listener:
        clients = [here.socket() for _ in range(4)]
        codes = [client.connect_ex(listener.getsockname()) for client in clients]
    for client in clients:
        client.close()
    result = running.result()
    assert errno.EADDRNOTAVAIL in codes
    failed = [row for row in result["connections"].values() if row["end"] == "failed"]
    assert len(failed) == len([code for code in codes if code])
    assert {row["error"] for row in failed} == {"EADDRNOTAVAIL"}
    assert result["opened_active"] - len(failed) == here.tcp_counters()["ActiveOpens"] - before["ActiveOpens"]


@pytest.mark.parametrize("late", [True, False])
def test_connections_that_wait_to_be_accepted_are_found_and_timed(
    probe: Start,
    here: Namespace,
    late: bool,
) -> None:
    running = tracker(probe, here)
    with here.listen() as listener:
        ends = []
        for _ in range(25):
            ends.append(here.socket())
            ends[-1].connect(listener.getsockname())
            if not late:
                ends.append(listener.accept()[0])
        if late:
            time.sleep(0.3)
            ends += [listener.accept()[0] for _ in range(25)]
    for end in ends:
        end.close()
    result = running.result()
    if result["attached"]["accept"] == "not on this kernel":
        pytest.skip("not on this kernel: no way of observing accepts")
    waits = [row["accept_wait_us"] for row in result["connections"].values() if row["side"] == "server"]
    assert len(waits) == 25
    assert all(wait is not None and (wait >= 0.3e6) == late for wait in waits)
    assert [row["finding"] for row in result["findings"].values()] == ["server's pool too small"] * late


def test_netfilters_table_is_read_where_connections_are_tracked(probe: Start, here: Namespace) -> None:
    for line in (
        "add table ip t",
        "add chain ip t c { type filter hook output priority 0; }",
        "add rule ip t c ct state new",
    ):
        subprocess.run(["ip", "netns", "exec", here.name, "nft", line], check=True)
    running = tracker(probe, here)
    ends = pair(here)
    result = running.result()
    for end in ends:
        end.close()
    if result["netfilter_table"] == "not here":
        pytest.skip("not on this kernel: nf_conntrack is not there")
    figures = {row["figure"]: row["value"] for row in result["netfilter"].values()}
    assert figures["entries"] == 1
    assert figures["max"] > 1
    assert figures.get("TCP ESTABLISHED", 1) == 1
    assert figures["insert_failed"] == 0


@pytest.mark.parametrize("dropped", ["", "sys_admin", "sys_ptrace"])
def test_what_a_run_lacks_the_rights_for_is_said_with_the_capability(
    probe: Start, here: Namespace, dropped: str
) -> None:
    older = pair(here)
    nobodys = subprocess.Popen(["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "600"])
    within = ("setpriv", "--bounding-set", f"-{dropped}", "--inh-caps", f"-{dropped}") if dropped else ()
    try:
        result = probe("conntrack", within=within).result()
    finally:
        nobodys.kill()
        nobodys.wait()
        for end in older:
            end.close()
    capability = f"CAP_{dropped.upper()}"
    assert set(result["not_known"]) == ({"already_open", "connections", "findings"} if dropped else set())
    assert all(f"needs {capability}:" in why for why in result["not_known"].values())
    assert (result["lost"].get("namespaces_unreached", 0) > 0) == (dropped == "sys_admin")
    seen = [row for row in result["connections"].values() if row["netns"] == here.path.stat().st_ino]
    assert len(seen) == (0 if dropped == "sys_admin" else 2)


def test_times_in_a_time_namespace_are_those_of_the_machine(probe: Start, here: Namespace) -> None:
    """Its clock is a hundred thousand seconds ahead of the one that programs read.

    A process that unshares its time namespace is not in it itself before 6.3, and may start no thread: one that enters
    another's is, and may.
    """
    holder = subprocess.Popen(["unshare", "--time", "--monotonic", "100000", "sleep", "110"])
    try:
        space = Path(f"/proc/{holder.pid}/ns/time_for_children")
        while space.readlink() == Path("/proc/self/ns/time_for_children").readlink():
            time.sleep(0.01)
        running = probe(
            "conntrack", "--set", f"probe.conntrack.netns={here.path}", within=("nsenter", f"--time={space}")
        )
    finally:
        holder.kill()
        holder.wait()
    ends = pair(here)
    time.sleep(0.3)
    result = running.result()
    for end in ends:
        end.close()
    spent = result["duration_seconds"] * 1e6 + 1000  # it has three decimals
    assert 0.3e6 < spent < 1e9
    rows = result["connections"].values()
    assert len(rows) == 2
    assert all(0.3e6 < row["lifetime_us"] < spent for row in rows)
    assert all(0.3e6 < row["established_us"] < spent for row in rows)
    for service in result["services"].values():
        assert 0 < service["open_avg"] <= 1
        assert service["churn_per_s"] * service["open_avg"] == pytest.approx(service["opened_per_s"], rel=0.01)
        assert service["opened_per_s"] == pytest.approx(1e6 / spent, rel=0.2)
    assert all(0 < row["until_s"] < spent / 1e6 + 0.1 for row in result["over_time"].values())


NAME = os.fsdecode(b"caf\xe9 \\ \n")
CONNECT = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); sys.stdin.read()"


@pytest.fixture
def odd_cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup whose name and whose mount point are no UTF-8."""
    mounted = tmp_path / NAME
    mounted.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", mounted], check=True)
    try:
        group = mounted / (f"probekit-{os.getpid()}-" + NAME.replace("\n", ""))
        group.mkdir()
        yield group
        group.rmdir()
    finally:
        subprocess.run(["umount", mounted], check=True)


JOIN = """
import os, sys
with open(sys.argv[1], "w") as processes:
    processes.write(str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""A process that joins a cgroup and becomes another program."""


def test_a_cgroup_and_a_mount_point_of_any_bytes_cost_no_result(
    probe: Start, here: Namespace, odd_cgroup: Path
) -> None:
    running = tracker(probe, here)
    with here.listen() as listener:
        command = ["ip", "netns", "exec", here.name, sys.executable, "-c", CONNECT, str(listener.getsockname()[1])]
        joined = [sys.executable, "-c", JOIN, str(odd_cgroup / "cgroup.procs"), *command]
        with subprocess.Popen(joined, stdin=subprocess.PIPE) as child:
            server, _ = listener.accept()
            result = running.result()
            child.communicate(b"")
    name = server.getpeername()
    server.close()
    assert row_of(result, name)["cgroup"].startswith(f"/probekit-{os.getpid()}-caf")


def test_only_the_namespace_that_is_asked_for_is_looked_at(
    probe: Start,
    here: Namespace,
    there: Namespace,
) -> None:
    running = tracker(probe, here)
    ends = [*pair(here), *pair(there)]
    for end in ends:
        end.close()
    result = running.result()
    assert {row["netns"] for row in result["connections"].values()} == {here.path.stat().st_ino}
    assert result["opened"] == 2


def test_ipv6_connections_and_those_mapped_from_ipv4(probe: Start, here: Namespace) -> None:
    running = tracker(probe, here)
    server = here.do(lambda: socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    port = server.getsockname()[1]
    for address in ("::1", "127.0.0.1"):
        client = here.do(lambda address=address: socket.create_connection((address, port)))  # type: ignore[misc]
        accepted = server.accept()[0]
        client.close()
        accepted.close()
    server.close()
    rows = running.result()["connections"].values()
    assert {row["destination"] for row in rows if row["side"] == "client"} == {f"[::1]:{port}", f"127.0.0.1:{port}"}
    assert {row["source"] for row in rows if row["side"] == "server"} == {f"[::1]:{port}", f"127.0.0.1:{port}"}
    assert len({row["id"] for row in rows}) == 2
