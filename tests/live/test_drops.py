"""The drop probe on this kernel: the funnel, other people's programs, streams, and frees that are no drops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.drop_cases import PORT, RIGHT, send
from tests.kernel.measured import PROBEKIT, measured
from tests.kernel.netns import Namespace, lab, run

from .test_signals import program_ids, wait_until_gone

SENT = 300
SO_RCVBUFFORCE = 33  # Python does not name it
DROPPED = SENT // 3
RESENT = ("TcpExtDelayedACKLost", "TcpRetransSegs", "TcpExtTCPLossProbes", "TcpExtTCPWinProbe", "TcpExtTCPKeepAlive")
EXPLAINED = {
    "TCP_OFO_QUEUE_PRUNE": ("TcpExtOfoPruned",),
    "SOCKET_BACKLOG": ("TcpExtTCPBacklogDrop",),
    "TCP_OLD_SEQUENCE": RESENT,
    "TCP_OLD_DATA": RESENT,
    "TCP_ABORT_ON_DATA": ("TcpExtTCPAbortOnData",),  # iperf's client sends on while its server closes
    "NO_SOCKET": ("TcpOutRsts",),  # the last segments of a connection closed with data unread, or the reset after them
}
LAYERS = 'probe.drops.layers=["xdp", "device", "tc", "netfilter", "socket"]'
DEVICES = 'probe.drops.devices=["v1r"]'


@contextmanager
def dropper(space: Namespace, kind: str) -> Iterator[None]:
    """Somebody else's program on v1r that drops every third packet."""
    command = ["ip", "netns", "exec", space.name, sys.executable, "-m", "tests.live.droppers", kind, "v1r"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "attached\n"
        yield
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@contextmanager
def listening(space: Namespace) -> Iterator[None]:
    """A socket that takes what is sent to PORT."""
    with space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        receiver.bind((RIGHT, PORT))
        yield


def funnel(result: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Packets and those not seen afterwards, by layer."""
    return {row["layer"]: (row["packets"], row["unseen"]) for row in result["funnel"].values()}


def test_without_losses_every_layer_sees_every_packet(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with listening(right), measured(tmp_path, "--set", LAYERS, "--set", DEVICES, space=right) as result:
            left.call(send, SENT, (RIGHT, PORT))
    layers = funnel(result)
    path = ("xdp", "xdp passed", "received", "tc ingress", "prerouting", "prerouting passed", "input", "input passed")
    assert {name: layers[name] for name in path} == dict.fromkeys(path, (SENT, 0))
    assert layers["socket"][0] == SENT


def test_what_an_xdp_program_drops_is_missing_behind_xdp(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with (
            dropper(right, "xdp"),
            listening(right),
            measured(tmp_path, "--set", LAYERS, "--set", DEVICES, space=right) as result,
        ):
            before = json.loads(right.run("ip", "-j", "-d", "link", "show", "v1r"))[0]["xdp"]["prog"]["id"]
            left.call(send, SENT, (RIGHT, PORT))
            assert json.loads(right.run("ip", "-j", "-d", "link", "show", "v1r"))[0]["xdp"]["prog"]["id"] == before
    layers = funnel(result)
    if result["attached"]["xdp v1r"] == "xdp exit v1r":
        assert layers["xdp"] == (SENT, DROPPED)
        assert layers["xdp passed"] == (SENT - DROPPED, 0)
    else:  # this kernel lets nobody look at the end of a program, but counts its runs
        assert layers["xdp program"][0] >= SENT
        assert layers["xdp program"][1] == DROPPED
    assert layers["received"] == (SENT - DROPPED, 0)
    assert layers["socket"][0] == SENT - DROPPED


def test_what_a_tc_filter_drops_is_missing_behind_tc(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with (
            dropper(right, "tc"),
            listening(right),
            measured(tmp_path, "--set", LAYERS, "--set", DEVICES, space=right) as result,
        ):
            left.call(send, SENT, (RIGHT, PORT))
            assert "tc_third" in right.run("tc", "filter", "show", "dev", "v1r", "ingress")
    layers = funnel(result)
    assert layers["received"] == (SENT, 0)
    assert layers["tc ingress"] == (SENT, DROPPED)
    assert layers["prerouting"] == (SENT - DROPPED, 0)
    rows = [row for row in result["flows"].values() if row["destination"] == f"{RIGHT}:{PORT}"]
    assert [(row["reason"], row["category"], row["drops"]) for row in rows] == [("TC_INGRESS", "tc", DROPPED)]


def test_what_a_firewall_drops_is_missing_behind_its_hook(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        right.nft(f"table ip t {{\n chain c {{\n type filter hook input priority 0;\n udp dport {PORT} drop\n }}\n}}\n")
        with measured(tmp_path, "--set", LAYERS, "--set", DEVICES, space=right) as result:
            left.call(send, SENT, (RIGHT, PORT))
    assert funnel(result)["input"] == (SENT, SENT)


def test_nothing_stays_attached_after_sigkill(tmp_path: Path) -> None:
    with lab() as bench:
        _, right = bench.pair()
        before = right.run("bpftool", "net")
        with (
            contextlib.suppress(AssertionError),
            measured(tmp_path, "--set", LAYERS, "--set", DEVICES, space=right) as result,
        ):
            ours = program_ids(result["pid"])
            names = {name(program) for program in ours}
            os.kill(result["pid"], signal.SIGKILL)
        assert {"xdp_own", "tc_ingress"} <= names
        assert wait_until_gone(ours) == set()
        assert right.run("bpftool", "net") == before
        assert "xdp" not in json.loads(right.run("ip", "-j", "-d", "link", "show", "v1r"))[0]


def name(program: int) -> str:
    shown: str = json.loads(run("bpftool", "--json", "prog", "show", "id", str(program)))["name"]
    return shown


def test_a_device_that_is_not_there_is_an_error() -> None:
    command = [PROBEKIT, "run", "drops", "--set", LAYERS, "--set", 'probe.drops.devices=["nosuch0"]']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "nosuch0" in done.stderr


def test_each_drop_is_streamed_with_its_stack_and_what_is_beyond_the_rate_is_counted(tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    port = 10_000 + os.getpid() % 20_000  # of this run of the test alone
    options = ("mode=events", "stacks=true", "rate=50", 'protocols=["udp"]', f"port={port}")
    arguments = [word for option in options for word in ("--set", f"probe.drops.{option}")]
    with lab() as bench:
        left, right = bench.pair()
        with measured(tmp_path, *arguments, "--export", f"jsonl:{stream}") as result:
            left.call(send, SENT, (RIGHT, port))
    events = [json.loads(line) for line in stream.read_text().splitlines() if '"record": "event"' in line]
    assert len(events) == result["streamed"] >= 50
    assert result["streamed"] + result["held_back"] == SENT == result["total_drops"]
    assert {event["destination"] for event in events} == {f"{RIGHT}:{port}"}
    for event in events:
        assert event["netns"] == right.name
        assert event["reason"] == "NO_SOCKET"
        frames = event["stack"].split(" < ")
        assert frames[0] == event["location"]
        assert any(frame.startswith("ip_local_deliver_finish") for frame in frames)


def test_flows_beyond_the_table_are_counted_by_reason_and_function(tmp_path: Path) -> None:
    ports = range(10000, 10200)
    with lab() as bench:
        left, right = bench.pair()
        chosen = ("max_flows=64", 'protocols=["udp"]', 'netns="own"')
        options = [part for option in chosen for part in ("--set", f"probe.drops.{option}")]
        with measured(tmp_path, *options, space=right) as result:
            for port in ports:
                left.call(send, 2, (RIGHT, port))
    flows = result["flows"].values()
    ours = sum(row["drops"] for row in flows if row["netns"] == right.name)
    assert sum(row["drops"] for row in result["drops"].values() if row["reason"] == "NO_SOCKET") >= 2 * len(ports)
    assert len(flows) <= 64
    assert result["flows_unlisted"] >= 2 * len(ports) - ours >= 2 * (len(ports) - 64)
    # whosever they are, and whatever for
    assert sum(row["drops"] for row in flows) + result["flows_unlisted"] == result["total_drops"]
    assert result["lost"]["drops_uncounted"] == 0


def test_the_owner_of_a_full_socket_is_named(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with (
            measured(tmp_path) as result,
            right.entered(),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            receiver.bind((RIGHT, PORT))
            left.call(send, 50, (RIGHT, PORT), 1000)
            time.sleep(1.5)
    rows = [row for row in result["flows"].values() if row["netns"] == right.name]
    assert [(row["reason"], row["pid"], row["device"]) for row in rows] == [("SOCKET_RCVBUFF", os.getpid(), "v1r")]


def test_a_clean_run_of_iperf_has_no_drops_that_the_kernel_does_not_count(tmp_path: Path) -> None:
    with lab() as bench:
        left, right = bench.pair()
        with measured(tmp_path) as result:
            with subprocess.Popen(
                ["ip", "netns", "exec", right.name, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
            ) as server:
                time.sleep(0.5)
                report = json.loads(left.run("iperf3", "-c", RIGHT, "-n", "4G", "-J"))
                server.wait(30)
            counters = left.snmp(), right.snmp()
    assert report["end"]["sum_received"]["bytes"] > 4e9
    rows = [row for row in result["flows"].values() if row["netns"] in (left.name, right.name)]
    for row in rows:  # each explained by a counter of the kernel's own
        names = EXPLAINED.get(row["reason"], ())
        assert row["drops"] <= sum(space.get(name, 0) for name in names for space in counters), row


def test_closing_sockets_is_no_drop(tmp_path: Path) -> None:
    times = 20
    with lab() as bench:
        space = bench.namespace("a")
        with measured(tmp_path) as result, space.entered():
            for _ in range(times):
                _close_with_unread_data(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
                with socket.create_server(("127.0.0.1", 0)) as server:
                    client = socket.create_connection(server.getsockname())
                    _close_with_unread_data(client, server.accept()[0])
                    client = socket.create_connection(server.getsockname())
                    accepted, _ = server.accept()
                    client.close()  # what ends the connection is still in the queue of the other end when that closes
                    accepted.close()
    assert [row for row in result["flows"].values() if row["netns"] == space.name] == []
    assert result["normal_frees"] >= times


def _close_with_unread_data(sender: socket.socket, receiver: socket.socket) -> None:
    sender.send(b"unread")
    receiver.close()
    sender.close()
