"""What TCP and UDP give up for reasons that say too little, and what they give up without losing anything."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from probekit.machine import kernel

from .drop_cases import LEFT, PORT, RIGHT, SENT, Case, Expected, packet, segment, send, send_raw, steady, version
from .netns import Lab, Namespace

_UDP = ("__udp4_lib_rcv", "udp_rcv", "udp_queue_rcv_one_skb")
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_KEEPALIVES = 3


def _forbid(space: Namespace) -> None:
    try:
        space.run(
            "ip", "xfrm", "policy", "add", "dir", "in", "src", LEFT, "dst", RIGHT, "proto", "udp", "dport", str(PORT),
            "action", "block",
        )  # fmt: skip
    except AssertionError as error:
        pytest.skip(f"not on this kernel: {error}")


def policy_without_socket(lab: Lab) -> Expected:
    """The kernel counts them as InErrors, not as NoPorts, and gives no reason."""
    left, right = lab.pair()
    _forbid(right)
    left.call(send, SENT, (RIGHT, PORT))
    counters = right.snmp()
    assert (counters["UdpInErrors"], counters["UdpNoPorts"]) == (SENT, 0)
    return Expected(right.name, "NOT_SPECIFIED", "policy", _UDP, SENT, without="no socket", next="IPsec")


def policy_with_socket(lab: Lab) -> Expected:
    left, right = lab.pair()
    _forbid(right)
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((RIGHT, PORT))
        left.call(send, SENT, (RIGHT, PORT))
    return Expected(right.name, "XFRM_POLICY", "policy", _UDP, SENT, without="congestion", next="IPsec")


def udp_without_header(lab: Lab) -> Expected:
    """Less than a UDP header is in them."""
    left, right = lab.pair()
    with right.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((RIGHT, PORT))
        left.call(send_raw, [packet(socket.IPPROTO_UDP, struct.pack("!HH", 1111, PORT))] * SENT)
        assert steady(lambda: right.snmp()["UdpInErrors"], SENT) == SENT
    return Expected(right.name, "NOT_SPECIFIED", "malformed", _UDP, SENT)


@contextmanager
def _by_hand(left: Namespace, right: Namespace) -> Iterator[int]:
    """A connection to RIGHT that LEFT's kernel knows nothing of; the number to acknowledge.

    The packets of its own have IP's number 1.
    """
    left.nft("table ip t {\n chain c {\n type filter hook output priority 0;\n ip id != 1 tcp flags rst drop\n }\n}\n")
    with right.entered():
        server = socket.create_server((RIGHT, PORT))
    with left.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with server, raw:
        raw.settimeout(10)
        left.call(send_raw, [segment((1111, PORT), _SYN, (1, 0))])
        number: int = struct.unpack_from("!I", raw.recv(100), 24)[0] + 1
        left.call(send_raw, [segment((1111, PORT), _ACK, (2, number))])
        accepted = server.accept()[0]
        with accepted:
            left.call(send_raw, [segment((1111, PORT), _ACK, (2, number), payload=b"0123")])
            assert accepted.recv(10) == b"0123"
            yield number


def _separate() -> bool:
    """Whether old sequence numbers have a reason of their own: what is beyond the window had the same before."""
    return kernel.detect().has_name("SKB_DROP_REASON_TCP_OLD_SEQUENCE")


def old_data(lab: Lab) -> Expected:
    """Bytes that were acknowledged, and a keepalive, which is one before what is expected: nothing is lost."""
    if version() < (5, 19):
        pytest.skip("not on this kernel: it frees them without telling (__kfree_skb)")
    left, right = lab.pair()
    with _by_hand(left, right) as number:
        again = segment((1111, PORT), _ACK, (2, number), payload=b"01")
        probe = segment((1111, PORT), _ACK, (5, number))
        left.call(send_raw, [again, probe] * SENT)
    counted, normal = (0, 2 * SENT) if _separate() else (SENT, SENT)
    return Expected(
        right.name, "TCP_INVALID_SEQUENCE", "tcp state", ("tcp_validate_incoming",), counted,
        destination=f"{RIGHT}:{PORT}", normal=normal,
    )  # fmt: skip


def resent_data(lab: Lab) -> Expected:
    """The last bytes once more, and bytes behind a gap twice: they are there already."""
    if version() < (5, 19):
        pytest.skip("not on this kernel: it frees them without telling (__kfree_skb)")
    left, right = lab.pair()
    with _by_hand(left, right) as number:
        again = segment((1111, PORT), _ACK, (2, number), payload=b"0123")
        behind = segment((1111, PORT), _ACK, (10, number), payload=b"89")
        left.call(send_raw, [behind, *[again, behind] * SENT])
    return Expected(right.name, "", "tcp state", (), 0, destination=f"{RIGHT}:{PORT}", normal=2 * SENT)


def beyond_the_window(lab: Lab) -> Expected:
    """Bytes that nobody has got."""
    if version() < (5, 19):
        pytest.skip("not on this kernel: it frees them without telling (__kfree_skb)")
    left, right = lab.pair()
    with _by_hand(left, right) as number:
        left.call(send_raw, [segment((1111, PORT), _ACK, (1 << 24, number), payload=b"01")] * SENT)
    return Expected(
        right.name, "TCP_INVALID_SEQUENCE", "tcp state", ("tcp_validate_incoming",), SENT,
        destination=f"{RIGHT}:{PORT}",
    )  # fmt: skip


def old_resets(lab: Lab) -> Expected:
    """A reset that is out of sequence is no keepalive."""
    if version() < (5, 19):
        pytest.skip("not on this kernel: it frees them without telling (__kfree_skb)")
    left, right = lab.pair()
    with _by_hand(left, right) as number:
        left.call(send_raw, [segment((1111, PORT), _RST | _ACK, (5, number))] * SENT)
    reason = "TCP_OLD_SEQUENCE" if _separate() else "TCP_INVALID_SEQUENCE"
    return Expected(right.name, reason, "tcp state", ("tcp_validate_incoming",), SENT, destination=f"{RIGHT}:{PORT}")


def keepalives(lab: Lab) -> Expected:
    """An idle connection: nothing is lost."""
    space = lab.namespace("idle")
    with space.entered(), socket.create_server(("127.0.0.1", PORT)) as server:
        client = socket.create_connection(("127.0.0.1", PORT))
        accepted, _ = server.accept()
        with client, accepted:
            for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1)):
                client.setsockopt(socket.IPPROTO_TCP, option, value)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end = time.monotonic() + 60
            while space.snmp()["TcpExtTCPKeepAlive"] < _KEEPALIVES:
                assert time.monotonic() < end, space.snmp()
                time.sleep(0.1)
    return Expected(space.name, "", "tcp state", (), 0, normal=_KEEPALIVES if version() >= (5, 19) else 0)


CASES: tuple[Case, ...] = (
    policy_without_socket, policy_with_socket, udp_without_header, old_data, resent_data, beyond_the_window, old_resets,
    keepalives,
)  # fmt: skip
