"""Packets that netfilter drops on purpose: at every hook of every family, without a rule, and for lack of a reader."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable

import pytest
from attrs import evolve

from .drop_cases import FAR, LEFT, NFT, PORT, RIGHT, SENT, Case, Expected, send, version
from .netns import Lab, Namespace, run

_ABSENT = ("Operation not supported", "No such file or directory", "Could not process rule: Invalid argument")
_NUMBERED = (6, 2)  # before, the number of the function that ran may be in a register that nobody saves
BRIDGED = "10.77.9"


def rules(space: Namespace, text: str) -> None:
    """Loads a ruleset; the test is not for a kernel that has no such family or hook."""
    done = subprocess.run(
        ["ip", "netns", "exec", space.name, "nft", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode and any(words in done.stderr for words in _ABSENT):
        pytest.skip(f"not on this kernel: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr


def _chain(family: str, hook: str, device: str = "", match: str = f"udp dport {PORT}", kind: str = "filter") -> str:
    of = f' device "{device}"' if device else ""
    return f"table {family} t {{\n chain c {{\n type {kind} hook {hook}{of} priority 0;\n {match} drop\n }}\n}}\n"


def _firewall(space: Namespace, hook: str, *chains: str, count: int = SENT, packets: int | None = None) -> Expected:
    return Expected(
        space.name, "NETFILTER_DROP", "firewall", NFT, count, hook=hook, chains=chains or ("",), packets=packets
    )


def netdev_ingress(lab: Lab) -> Expected:
    left, right = lab.pair()
    rules(right, _chain("netdev", "ingress", "v1r"))
    left.call(send, SENT, (RIGHT, PORT))
    return _firewall(right, "ingress", "netdev t c")


def netdev_egress(lab: Lab) -> Expected:
    left, _ = lab.pair()
    rules(left, _chain("netdev", "egress", "v1l"))
    left.call(send, SENT, (RIGHT, PORT))
    return _firewall(left, "egress", "netdev t c")


def inet_ingress(lab: Lab) -> Expected:
    left, right = lab.pair()
    rules(right, _chain("inet", "ingress", "v1r"))
    left.call(send, SENT, (RIGHT, PORT))
    return _firewall(right, "ingress", "inet t c")


def ip6_output(lab: Lab) -> Expected:
    space = lab.namespace("six")
    space.run("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
    rules(space, _chain("ip6", "output"))
    with space.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for _ in range(SENT):
            with contextlib.suppress(PermissionError):
                sender.sendto(b"x", ("::1", PORT))
    return _firewall(space, "output", "ip6 t c")


def prerouting(lab: Lab) -> Expected:
    left, right = lab.pair()
    rules(right, _chain("ip", "prerouting"))
    left.call(send, SENT, (RIGHT, PORT))
    return _firewall(right, "prerouting", "ip t c")


def postrouting(lab: Lab) -> Expected:
    left, router, _ = lab.routed()
    rules(router, _chain("inet", "postrouting"))
    left.call(send, SENT, (FAR, PORT))
    chains = ("inet t c",) if version() >= _NUMBERED else ("inet t c", "apparmor | inet t c")
    return _firewall(router, "postrouting", *chains)


def _arp_request(target: str) -> bytes:
    own = b"\x02\x00\x00\x00\x00\x01"
    addresses = own + socket.inet_aton(LEFT) + bytes(6) + socket.inet_aton(target)
    return b"\xff" * 6 + own + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x01" + addresses


def _send_frames(device: str, frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        for _ in range(SENT):
            raw.send(frame)


def arp_input(lab: Lab) -> Expected:
    left, right = lab.pair()
    rules(right, _chain("arp", "input", match="arp operation request"))
    left.call(_send_frames, "v1l", _arp_request(RIGHT))
    return _firewall(right, "input", "arp t c")


def arp_output(lab: Lab) -> Expected:
    """The answers to ARP requests."""
    left, right = lab.pair()
    rules(right, _chain("arp", "output", match="arp operation reply"))
    left.call(_send_frames, "v1l", _arp_request(RIGHT))
    return _firewall(right, "output", "arp t c")


def _bridge(lab: Lab) -> tuple[Namespace, Namespace]:
    """Two ends and a bridge between them, which has an address, too: .1, .2 and .3."""
    left, bridge, right = lab.namespace("a"), lab.namespace("br"), lab.namespace("b")
    bridge.run("ip", "link", "add", "br0", "type", "bridge")
    for end, port, host in ((left, "pl", 1), (right, "pr", 2)):
        run("ip", "link", "add", port, "netns", bridge.name, "type", "veth", "peer", "name", "e0", "netns", end.name)
        bridge.run("ip", "link", "set", port, "master", "br0", "up")
        end.run("ip", "addr", "add", f"{BRIDGED}.{host}/24", "dev", "e0")
        end.run("ip", "link", "set", "e0", "up")
    bridge.run("ip", "addr", "add", f"{BRIDGED}.3/24", "dev", "br0")
    bridge.run("ip", "link", "set", "br0", "up")
    left.call(send, 1, (f"{BRIDGED}.2", 9))
    left.call(send, 1, (f"{BRIDGED}.3", 9))
    return left, bridge


def _bridged(hook: str, host: int) -> Case:
    def case(lab: Lab) -> Expected:
        left, bridge = _bridge(lab)
        rules(bridge, _chain("bridge", hook))
        sender = bridge if hook == "output" else left
        sender.call(send, SENT, (f"{BRIDGED}.{host}", PORT))
        functions = (*NFT, "br_handle_frame")  # before 6.7 without a reason
        return evolve(_firewall(bridge, hook, "bridge t c"), functions=functions, since=(6, 7))

    case.__name__ = f"bridge_{hook}"
    return case


def _needs(command: Callable[..., str], *words: str) -> None:
    """Runs what a kernel or machine may lack the module for."""
    try:
        command(*words)
    except AssertionError as error:
        pytest.skip(f"not on this kernel: {error}")


def queue_without_reader(lab: Lab) -> Expected:
    left, right = lab.pair()
    match = ("-A", "INPUT", "-p", "udp", "--dport", str(PORT))
    _needs(right.run, "iptables-legacy", *match, "-j", "NFQUEUE", "--queue-num", "7")
    left.call(send, SENT, (RIGHT, PORT))
    return Expected(
        right.name, "NOT_SPECIFIED", "firewall", ("nf_queue", "__nf_queue", "nf_hook_slow"), SENT, hook="input",
        chains=("iptables filter INPUT",), next="NFQUEUE",
    )  # fmt: skip


def nat_chain(lab: Lab) -> Expected:
    """A rule drops in a chain of type nat, which NAT runs; a chain of type filter at the same hook does not."""
    left, right = lab.pair()
    rules(right, _chain("ip", "prerouting", kind="nat"))
    rules(
        right, "table ip look {\n chain c {\n type filter hook prerouting priority -10;\n ct state new counter\n }\n}\n"
    )
    left.call(send, SENT, (RIGHT, PORT))
    return _firewall(right, "prerouting")


_CLASH = (
    f"table ip n {{\n chain c {{\n type nat hook postrouting priority 100;\n udp dport {PORT} masquerade to :31000\n"
    " }\n}\ntable ip look {\n chain c {\n type filter hook postrouting priority 0;\n counter\n }\n}\n"
)


def nat_clash(lab: Lab) -> Expected:
    """All flows get one source port, so that all but the first have no mapping; an accepting chain is there, too."""
    left, _ = lab.pair()
    rules(left, _CLASH)
    for _ in range(SENT + 1):
        left.call(send, 1, (RIGHT, PORT))
    return Expected(
        left.name, "NETFILTER_DROP", "firewall", ("nf_hook_slow",), SENT, hook="postrouting", next="conntrack -S"
    )


def _tracked_table(tool: str, *before: str) -> Case:
    """iptables drops new connections where connection tracking and NAT are at the same hook."""

    def case(lab: Lab) -> Expected:
        left, right = lab.pair()
        track = "table ip n {\n chain i {\n type nat hook input priority 100;\n }\n"
        rules(right, track + " chain p {\n type nat hook prerouting priority -100;\n }\n}\n")
        rules(
            right, "table ip look {\n chain c {\n type filter hook input priority -10;\n ct state new counter\n }\n}\n"
        )
        for table in before:
            _needs(right.run, tool, "-t", table, "-A", "INPUT", "-p", "udp", "--dport", str(PORT))
        _needs(right.run, tool, "-A", "INPUT", "-p", "udp", "--dport", str(PORT), "-j", "DROP")
        left.call(send, SENT, (RIGHT, PORT))
        functions = ("nf_hook_slow", "nft_do_chain")
        name = "ip" if tool.endswith("nft") else "iptables"
        chains = (f"{name} filter INPUT", *(() if version() >= _NUMBERED else ("",)))
        return Expected(right.name, "NETFILTER_DROP", "firewall", functions, SENT, hook="input", chains=chains)

    case.__name__ = "_".join(["tracked", tool.replace("-", "_"), *before])
    return case


def conntrack_full(lab: Lab) -> Expected:
    left, right = lab.pair()
    rules(right, "table inet w {\n chain p {\n type filter hook prerouting priority -300;\n counter\n }\n"
                 " chain q {\n type filter hook prerouting priority 0;\n ct state new counter\n }\n}\n")  # fmt: skip
    limit = "/proc/sys/net/netfilter/nf_conntrack_max"
    left.call(send, 1, (RIGHT, PORT))
    subprocess.run(
        ["ip", "netns", "exec", right.name, "sh", "-c", f"echo 1 > {limit}"], check=False, capture_output=True
    )
    if right.run("cat", limit).strip() != "1":
        pytest.skip("not on this kernel: the limit is the machine's")
    for _ in range(SENT):
        left.call(send, 1, (RIGHT, PORT))
    dropped = _tracking_drops(right)  # less than were sent, where an older entry had to go instead
    assert 0 < dropped <= SENT
    return Expected(
        right.name, "NETFILTER_DROP", "firewall", ("nf_hook_slow",), dropped, hook="prerouting", next="nf_conntrack_max"
    )


def _tracking_drops(space: Namespace) -> int:
    """What connection tracking itself says that it has dropped."""
    names, *cpus = (line.split() for line in space.run("cat", "/proc/net/stat/nf_conntrack").splitlines())
    return sum(int(values[names.index("drop")], 16) for values in cpus)


def segments_at_a_hook(lab: Lab) -> Expected:
    """Buffers that stand for ten datagrams each, of a hundred bytes: less than a packet's size together."""
    left, right = lab.pair()
    rules(right, _chain("ip", "prerouting", match=f"udp dport {PORT} counter"))
    left.call(send_segments, SENT, (RIGHT, PORT), 100, 1000)
    listed = json.loads(right.run("nft", "-j", "list", "table", "ip", "t"))["nftables"]
    expressions = next(entry["rule"]["expr"] for entry in listed if "rule" in entry)
    buffers = next(entry["counter"]["packets"] for entry in expressions if "counter" in entry)
    assert buffers in (SENT, 10 * SENT)  # older kernels cut them in front of a veth
    return _firewall(right, "prerouting", "ip t c", count=buffers, packets=10 * SENT)


def send_segments(count: int, target: tuple[str, int], segment: int, size: int) -> None:
    """Sends buffers that are cut into datagrams (UDP_SEGMENT, 4.18)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, 103, segment)
        for _ in range(count):
            sender.sendto(b"x" * size, target)


CASES: tuple[Case, ...] = (
    netdev_ingress, netdev_egress, inet_ingress, ip6_output, prerouting, postrouting, arp_input, arp_output,
    *(_bridged(hook, 2) for hook in ("prerouting", "forward", "output", "postrouting")), _bridged("input", 3),
    queue_without_reader, nat_chain, nat_clash, _tracked_table("iptables-legacy"),
    _tracked_table("iptables-legacy", "mangle"), _tracked_table("iptables-nft"), conntrack_full, segments_at_a_hook,
)  # fmt: skip
