"""Packets that are dropped on purpose, in namespaces of their own, each case with the number that it sent."""

from __future__ import annotations

import contextlib
import platform
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from attrs import frozen

from .netns import Lab

SENT = 50
LEFT, RIGHT, FAR = "10.77.1.1", "10.77.1.2", "10.77.2.2"
PORT = 9999


@frozen
class Expected:
    """What the probe has to say.

    Attributes:
        netns: Where the drops are.
        reason: The kernel's name of it, from the kernel on that has it in use there.
        since: That kernel.
        category: Its category.
        functions: One of them dropped.
        count: How many.
        hook: Netfilter's.
        chains: One of them is the chain.
        destination: Only rows to there.
        without: Its category where the kernel gives no reasons, if the function alone means something else.
        packets: What the dropped buffers stand for, where that is not as many.
        next: Words of what to look at.
        normal: How many frees there were at the same place that lose nothing.
    """

    netns: str
    reason: str
    category: str
    functions: tuple[str, ...]
    count: int
    since: tuple[int, int] = (5, 17)
    hook: str = ""
    chains: tuple[str, ...] = ("",)
    destination: str = ""
    without: str = ""
    packets: int | None = None
    next: str = ""
    normal: int = 0


Case = Callable[[Lab], Expected]
NFT = ("nft_do_chain", "nf_hook_slow")


def version() -> tuple[int, int]:
    """The running kernel's."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    assert found
    return int(found[1]), int(found[2])


def send(count: int, target: tuple[str, int], size: int = 8, hops: int = 64) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        for _ in range(count):
            with contextlib.suppress(PermissionError):  # what a firewall says to its own side
                sender.sendto(b"x" * size, target)


def steady(read: Callable[[], int], at_least: int = 0) -> int:
    """A counter once it stands still: a busy machine handles packets later, in a thread."""
    value, end = read(), time.monotonic() + 30
    while True:
        time.sleep(0.3)
        before, value = value, read()
        if value == before and (value >= at_least or time.monotonic() > end):
            return value


def _rules(hook: str, kind: str = "inet") -> str:
    return f"table {kind} t {{\n chain c {{\n type filter hook {hook} priority 0;\n udp dport {PORT} drop\n }}\n}}\n"


def nft_input(lab: Lab) -> Expected:
    left, right = lab.pair()
    right.nft(_rules("input"))
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(right.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="input", chains=("inet t c",))


def nft_forward(lab: Lab) -> Expected:
    left, router, _ = lab.routed()
    router.nft(_rules("forward", "ip"))
    left.call(send, SENT, (FAR, PORT))
    return Expected(router.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="forward", chains=("ip t c",))


def nft_output(lab: Lab) -> Expected:
    left, _ = lab.pair()
    left.nft(_rules("output"))
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(left.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="output", chains=("inet t c",))


def nft_second_chain(lab: Lab) -> Expected:
    """Of two chains at one hook the second one drops, in a chain that it jumps to."""
    left, right = lab.pair()
    right.nft(
        "table inet t {\n chain first {\n type filter hook input priority 0;\n udp dport 1 drop\n }\n"
        f" chain below {{\n udp dport {PORT} drop\n }}\n"
        " chain second {\n type filter hook input priority 1;\n jump below\n }\n}\n"
    )
    left.call(send, SENT, (RIGHT, PORT))
    chains: tuple[str, ...] = ("inet t second",)
    if version() < (6, 12):  # the stack may have lost it when the loop over the hooks drops for the chain: both, then
        chains = (*chains, "inet t first | inet t second")
    return Expected(right.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="input", chains=chains)


def nft_ip6(lab: Lab) -> Expected:
    space = lab.namespace("six")
    space.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
    space.nft(_rules("input", "ip6"))
    with space.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for _ in range(SENT):
            sender.sendto(b"x", ("::1", PORT))
    return Expected(
        space.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="input", chains=("ip6 t c",),
        destination=f"[::1]:{PORT}",
    )  # fmt: skip


def iptables_nft(lab: Lab) -> Expected:
    left, right = lab.pair()
    right.run("iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(right.name, "NETFILTER_DROP", "firewall", NFT, SENT, hook="input", chains=("ip filter INPUT",))


def iptables_legacy(lab: Lab) -> Expected:
    left, right = lab.pair()
    right.run("iptables-legacy", "-A", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(
        right.name, "NETFILTER_DROP", "firewall", ("nf_hook_slow",), SENT, hook="input",
        chains=("iptables filter INPUT",),
    )  # fmt: skip


def udp_closed_port(lab: Lab) -> Expected:
    left, right = lab.pair()
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(
        right.name, "NO_SOCKET", "no socket", ("__udp4_lib_rcv", "udp_rcv"), SENT, destination=f"{RIGHT}:{PORT}"
    )


def tcp_closed_port(lab: Lab) -> Expected:
    left, right = lab.pair()

    def connect() -> None:
        for _ in range(SENT):
            with contextlib.suppress(ConnectionRefusedError), socket.socket() as client:
                client.connect((RIGHT, PORT))

    left.call(connect)
    return Expected(right.name, "NO_SOCKET", "no socket", ("tcp_v4_rcv",), SENT)


def hops_exceeded(lab: Lab) -> Expected:
    left, router, _ = lab.routed()
    left.call(send, SENT, (FAR, PORT), 8, 1)
    return Expected(router.name, "IP_INHDR", "routing", ("ip_forward",), SENT, since=(6, 1))


def no_route(lab: Lab) -> Expected:
    left, router, _ = lab.routed()
    left.call(send, SENT, ("10.99.0.1", PORT))
    return Expected(router.name, "IP_INNOROUTES", "routing", ("ip_error", "ip_rcv_finish_core"), SENT, since=(5, 18))


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(int(word) for word in struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(
    ports: tuple[int, int], flags: int, numbers: tuple[int, int], spoil: int = 0, payload: bytes = b""
) -> bytes:
    """An IPv4 packet with a TCP header from LEFT to RIGHT."""
    header = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 65535, 0, 0)
    pseudo = (
        socket.inet_aton(LEFT)
        + socket.inet_aton(RIGHT)
        + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(header) + len(payload))
    )
    header = header[:16] + struct.pack("!H", _checksum(pseudo + header + payload) ^ spoil) + header[18:]
    return packet(socket.IPPROTO_TCP, header + payload)


def packet(protocol: int, payload: bytes) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, socket.inet_aton(LEFT),
        socket.inet_aton(RIGHT),
    )  # fmt: skip
    return head + payload


def send_raw(packets: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, (RIGHT, 0))


def udp_checksum(lab: Lab) -> Expected:
    left, right = lab.pair()
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((RIGHT, PORT))
        datagram = struct.pack("!HHHH", 1111, PORT, 12, 0xDEAD) + b"spam"
        left.call(send_raw, [packet(socket.IPPROTO_UDP, datagram)] * SENT)
        assert steady(lambda: right.snmp()["UdpInCsumErrors"], SENT) == SENT
    functions = ("__udp4_lib_rcv", "udp_queue_rcv_one_skb", "udp_rcv")
    return Expected(right.name, "UDP_CSUM", "malformed", functions, SENT, without="no socket")


def tcp_checksum(lab: Lab) -> Expected:
    left, right = lab.pair()
    with right.entered(), socket.create_server((RIGHT, PORT)):
        left.call(send_raw, [segment((1111, PORT), 2, (1, 0), spoil=1)] * SENT)
        assert steady(lambda: right.snmp()["TcpInCsumErrors"], SENT) == SENT
    return Expected(right.name, "TCP_CSUM", "malformed", ("tcp_v4_rcv", "tcp_v4_do_rcv"), SENT, without="no socket")


def receive_buffer(lab: Lab) -> Expected:
    left, right = lab.pair()
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind((RIGHT, PORT))
        left.call(send, SENT, (RIGHT, PORT), 1000)
        lost = steady(lambda: right.snmp()["UdpRcvbufErrors"], 1)
    functions = ("__udp_enqueue_schedule_skb", "udp_queue_rcv_one_skb", "__udp_queue_rcv_skb")
    assert 0 < lost < SENT
    return Expected(right.name, "SOCKET_RCVBUFF", "congestion", functions, lost)


def tbf_overflow(lab: Lab) -> Expected:
    left, _ = lab.pair()
    left.run("tc", "qdisc", "add", "dev", "v1l", "root", "tbf", "rate", "100kbit", "burst", "2kb", "limit", "4kb")
    left.call(send, SENT, (RIGHT, PORT), 1000)
    functions = (
        "__dev_queue_xmit", "__dev_xmit_skb", "kfree_skb_list", "kfree_skb_list_reason", "__tcf_kfree_skb_list",
    )  # fmt: skip
    lost = steady(lambda: left.qdisc_drops("v1l"), 1)
    assert 0 < lost < SENT
    return Expected(
        left.name, "QDISC_DROP", "congestion", functions, lost, since=(5, 18), destination=f"{RIGHT}:{PORT}"
    )


def listen_overflow(lab: Lab) -> Expected:
    """Handshakes that end when the queue of the listener is full, done by hand: all begin before the first one ends."""
    if version() < (6, 14):
        pytest.skip("not on this kernel: it gives no reason for what a full listener drops")
    left, right = lab.pair()
    left.nft("table ip t {\n chain c {\n type filter hook output priority 0;\n tcp flags rst drop\n }\n}\n")
    right.run("sysctl", "-qw", "net.ipv4.tcp_syncookies=0")
    backlog, waiting = 20, 15
    with right.entered(), ExitStack() as stack:
        stack.enter_context(socket.create_server((RIGHT, PORT), backlog=backlog))
        with left.entered():
            for _ in range(waiting):
                stack.enter_context(socket.create_connection((RIGHT, PORT)))
        left.call(_handshakes, backlog)
        lost = steady(lambda: right.snmp()["TcpExtListenOverflows"], 1)
    assert lost == waiting + backlog - (backlog + 1)  # one more than the backlog fits
    functions = ("tcp_v4_rcv", "tcp_v4_syn_recv_sock")
    return Expected(right.name, "TCP_LISTEN_OVERFLOW", "congestion", functions, lost, since=(6, 14))


def _handshakes(count: int) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender,
    ):
        receiver.settimeout(10)
        for port in range(20000, 20000 + count):
            sender.sendto(segment((port, PORT), 0x02, (1, 0)), (RIGHT, 0))
        offered: dict[int, int] = {}
        while len(offered) < count:
            reply = receiver.recv(100)[20:]
            _, port, number = struct.unpack_from("!HHI", reply)
            if reply[13] == 0x12:
                offered[port] = number
        for port, number in offered.items():
            sender.sendto(segment((port, PORT), 0x10, (2, number + 1)), (RIGHT, 0))


CASES: tuple[Case, ...] = (
    nft_input, nft_forward, nft_output, nft_second_chain, nft_ip6, iptables_nft, iptables_legacy, udp_closed_port,
    tcp_closed_port, hops_exceeded, no_route, udp_checksum, tcp_checksum, receive_buffer, tbf_overflow, listen_overflow,
)  # fmt: skip
