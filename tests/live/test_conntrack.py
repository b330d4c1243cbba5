"""The connection tracker at full numbers, and beside others who look at the same connections."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.kernel.lives import KINDS, assert_balanced, differences, live_and_die
from tests.kernel.netlab import Capture, Namespace, delayed
from tests.tracing import with_tracefs

from .conftest import Probe

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
DELAY = 0.05
Start = Callable[..., Probe]


@pytest.fixture
def here() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def there() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def tracker(start: Start, namespace: Namespace, *arguments: str) -> Probe:
    return start("conntrack", "--set", f"probe.conntrack.netns={namespace.path}", *arguments)


def test_ten_thousand_connections_end_in_every_way(probe: Start, here: Namespace, there: Namespace) -> None:
    times = dict(zip(KINDS, (3000, 3000, 1500, 1500, 700, 200, 100), strict=True))
    running = tracker(probe, here)
    before = here.tcp_counters()
    ends = live_and_die(here, there, times)
    after = here.tcp_counters()
    result = running.result()
    assert sum(times.values()) == 10_000
    assert differences(result, ends) == []
    assert_balanced(result, before, after)


def assert_agree(measured_and_others: Iterable[tuple[float, float]], error: float) -> None:
    """Two who look at the same moments say the same, but for the few that the machine paused in between."""
    pairs = list(measured_and_others)
    apart = [(ours, others) for ours, others in pairs if ours != pytest.approx(others, rel=error)]
    print(f"{len(pairs) - len(apart)} of {len(pairs)} within {error:.0%}; the others: {apart}")
    assert len(apart) <= len(pairs) / 50


def test_handshakes_take_as_long_as_the_packets_say(probe: Start, here: Namespace, there: Namespace) -> None:
    with delayed(here, there, DELAY) as (_, address), there.listen(address) as listener:
        both = probe("conntrack", "--set", "probe.conntrack.max_closed=1000000")  # others' may be thousands a second
        with Capture(here, "delayed") as sent, Capture(there, "delayed") as received:
            for _ in range(50):
                with here.socket() as client:
                    client.connect(listener.getsockname())
                    listener.accept()[0].close()
        result = both.result()
    mine, theirs = (
        {
            tuple(int(row[end].rpartition(":")[2]) for end in ("source", "destination")): row["handshake_us"]
            for row in result["connections"].values()
            if row[peer].startswith("10.97.0.2:")
        }
        for peer in ("destination", "source")
    )
    for measured, packets in ((mine, sent.between(SYN, SYN_ACK)), (theirs, received.between(SYN_ACK, ACK))):
        print(f"not in the capture: {measured.keys() - packets.keys()}")
        assert len(packets) == 50
        assert packets.keys() <= measured.keys()
        assert min(packets.values()) > 2 * DELAY * 1e6
        assert_agree(((measured[ports], took) for ports, took in packets.items()), 0.05)


@contextlib.contextmanager
def printing(folder: Path, *command: str) -> Iterator[Path]:
    """One of libbpf-tools while it prints, to a file."""
    path = folder / command[0]
    lines = with_tracefs("stdbuf", "-oL", *command)
    with path.open("w") as out, subprocess.Popen(lines, stdout=out, stderr=out) as tool:
        while not path.read_text():
            assert tool.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        yield path
        time.sleep(1)
        tool.send_signal(signal.SIGINT)


def test_tcplife_and_tcpstates_see_the_same_connections_and_durations(probe: Start, tmp_path: Path) -> None:
    with (
        printing(tmp_path, "tcplife") as lives,
        printing(tmp_path, "tcpstates") as states,
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
    ):
        running = probe("conntrack")
        port = listener.getsockname()[1]
        for _ in range(4):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(25)]
            servers = [listener.accept()[0] for _ in clients]
            time.sleep(0.1)
            for place, (client, server) in enumerate(zip(clients, servers, strict=True)):
                for end in (client, server) if place % 2 else (server, client):
                    end.close()
        result = running.result()
    ours = {
        (int(row["source"].rpartition(":")[2]), int(row["destination"].rpartition(":")[2])): row
        for row in result["connections"].values()
        if f":{port}" in row["source"] + row["destination"] and row["state"] == "close"
    }
    ours = {ports: row for ports, row in ours.items() if port in ports}
    assert len(ours) == 200
    life = re.compile(r"^\d+ .* 127\.0\.0\.1 +(\d+) +127\.0\.0\.1 +(\d+) +\S+ +\S+ +([\d.]+)$", re.MULTILINE)
    found = {(int(a), int(b)): float(ms) for a, b, ms in life.findall(lives.read_text()) if port in (int(a), int(b))}
    assert found.keys() == ours.keys()
    # tcplife's time begins with the last state before FIN_WAIT1
    lasted = {p: row["lifetime_us"] - row["syn_sent_us"] - row["syn_recv_us"] for p, row in ours.items()}
    assert_agree(((lasted[ports], ms * 1000) for ports, ms in found.items()), 0.01)
    dwelt = re.compile(r" (\d+) +127\.0\.0\.1 +(\d+) +ESTABLISHED +-> +\S+ +([\d.]+)$", re.MULTILINE)
    found = {(int(a), int(b)): float(ms) for a, b, ms in dwelt.findall(states.read_text()) if port in (int(a), int(b))}
    assert found.keys() == ours.keys()
    assert_agree(((ours[ports]["established_us"], ms * 1000) for ports, ms in found.items()), 0.01)


def answers(namespace: Namespace, port: int) -> bool:
    with namespace.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def redis_inside(here: Namespace, tmp_path: Path) -> Iterator[int]:
    """A redis server in the namespace `here`, its port."""
    program = tmp_path / "redis-server"
    program.symlink_to("/usr/bin/redis-check-rdb")
    command = ["ip", "netns", "exec", here.name, str(program), "--port", "7379", "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        [*command, "--dir", str(tmp_path), "--tcp-backlog", "512"], stdout=subprocess.DEVNULL
    ) as server:
        try:
            while not answers(here, 7379):
                time.sleep(0.05)
            yield 7379
        finally:
            server.terminate()


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("fresh", {"new connection per request"}),
        ("ports", {"new connection per request", "port exhaustion near"}),
        ("crowded", {"pool too small"}),
        ("relaxed", set()),
        ("idle", {"idle connections cut by the peer"}),
    ],
)
def test_a_pool_of_ten_is_found_to_be_what_it_is(
    probe: Start, here: Namespace, redis_inside: int, way: str, found: set[str]
) -> None:
    cli = ["ip", "netns", "exec", here.name, "redis-cli", "-p", str(redis_inside)]
    if way == "idle":
        subprocess.run([*cli, "config", "set", "timeout", "1"], check=True, stdout=subprocess.DEVNULL)
    if way == "ports":
        here.sysctl(ip_local_port_range="20000 20099", tcp_tw_reuse=0)
    tracking = probe("conntrack", "latency", "--set", f"probe.conntrack.netns={here.path}")
    with here.popen("../kernel/pool.py", way, str(redis_inside)) as program:
        assert program.wait(60) == 0
    result = tracking.result()
    assert {row["finding"] for row in result["findings"].values()} == found
    service = next(row for row in result["services"].values() if row["side"] == "client" and row["opened"])
    assert service["open_max"] in ((1, 2) if way in ("fresh", "ports") else (10,))  # the last one may still be closing
    per_connection = {"fresh": 1, "ports": 1, "crowded": 12, "relaxed": 12, "idle": 1}[way]
    assert service["requests_per_connection"] == pytest.approx(per_connection, abs=0.2)
    if way in ("crowded", "relaxed"):
        assert (service["idle_share"] < 0.25) == (way == "crowded")


def test_a_hundred_thousand_connections_are_counted_and_the_memory_is_bounded(
    probe: Start, here: Namespace, redis_inside: int
) -> None:
    here.sysctl(ip_local_port_range="1024 65535", tcp_tw_reuse=1)
    before = here.tcp_counters()
    tracking = tracker(
        probe, here, "--set", "probe.conntrack.max_closed=20000", "--set", "probe.conntrack.max_connections=512"
    )
    held = [here.do(lambda: socket.create_connection(("127.0.0.1", redis_inside))) for _ in range(400)]
    command = [
        "redis-benchmark",
        "-p",
        str(redis_inside),
        "-k",
        "0",
        "-c",
        "20",
        "-n",
        "100000",
        "-t",
        "ping_inline",
        "-q",
    ]
    subprocess.run(["ip", "netns", "exec", here.name, *command], check=True, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{tracking.pid}/status").read_text()
    after = here.tcp_counters()
    result = tracking.result()
    for client in held:
        client.close()
    lost = result["lost"]
    opened = after["ActiveOpens"] + after["PassiveOpens"] - before["ActiveOpens"] - before["PassiveOpens"]
    assert after["ActiveOpens"] - before["ActiveOpens"] > 100_000
    assert lost["table_full"] > 0
    assert opened == result["opened"] + lost["table_full"]
    assert result["opened"] + result["already_open"] == result["closed"] + result["still_open"]
    assert sum(result["ends"].values()) + lost["connections_ring_full"] == result["closed"]
    assert len(result["connections"]) <= 20_000 + 512
    assert lost["programs_missed"] == 0
    resident = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    assert resident < 400_000
