"""Network namespaces of a test's own, with veth between them; all gone with the test."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000


def run(*command: str, **options: Any) -> str:
    """A command's output; it has to succeed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *command: str, **options: Any) -> str:
        """Runs a command in it."""
        return run("ip", "netns", "exec", self.name, *command, **options)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's sockets are made in it meanwhile."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{self.name}").open() as there:
            assert setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert setns(home.fileno(), _CLONE_NEWNET) == 0

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Calls a function whose sockets are this namespace's."""
        with self.entered():
            return function(*arguments)

    def nft(self, rules: str) -> None:
        """Loads a ruleset."""
        self.run("nft", "-f", "-", input=rules)

    def snmp(self) -> dict[str, int]:
        """The namespace's counters: `UdpRcvbufErrors`, `TcpExtListenOverflows`."""
        values = {}
        for file in ("snmp", "netstat"):
            lines = self.run("cat", f"/proc/net/{file}").splitlines()
            for names, numbers in zip(lines[::2], lines[1::2], strict=True):
                prefix = names.split(":")[0]
                pairs = zip(names.split()[1:], numbers.split()[1:], strict=True)
                values.update({prefix + name: int(number) for name, number in pairs})
        return values

    def qdisc_drops(self, device: str) -> int:
        """What the root queue of a device has dropped."""
        shown = json.loads(self.run("tc", "-s", "-j", "qdisc", "show", "dev", device))
        return int(shown[0]["drops"])


class Lab:
    """Makes namespaces and connects them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._made = 0

    def namespace(self, word: str) -> Namespace:
        """A new one, with loopback; no IPv6 until asked for, which talks by itself."""
        self._made += 1
        space = Namespace(f"pk{os.getpid()}-{self._made}-{word}")
        run("ip", "netns", "add", space.name)
        self._stack.callback(run, "ip", "netns", "del", space.name)
        for scope in ("all", "default"):
            space.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        run("ip", "-n", space.name, "link", "set", "lo", "up")
        return space

    def connect(self, left: Namespace, right: Namespace, subnet: int) -> None:
        """A veth pair named after each other's place: 10.77.SUBNET.1 on the left, .2 on the right."""
        names = (f"v{subnet}l", f"v{subnet}r")
        run(
            "ip", "link", "add", names[0], "netns", left.name, "type", "veth", "peer", "name", names[1],
            "netns", right.name,
        )  # fmt: skip
        for space, name, host in ((left, names[0], 1), (right, names[1], 2)):
            run("ip", "-n", space.name, "addr", "add", f"10.77.{subnet}.{host}/24", "dev", name)
            run("ip", "-n", space.name, "link", "set", name, "up")

    def pair(self) -> tuple[Namespace, Namespace]:
        """Two namespaces: 10.77.1.1 on v1l, 10.77.1.2 on v1r."""
        left, right = self.namespace("a"), self.namespace("b")
        self.connect(left, right, 1)
        return left, right

    def routed(self) -> tuple[Namespace, Namespace, Namespace]:
        """Three: 10.77.1.1, a router with .1.2 and .2.1, 10.77.2.2."""
        left, router, right = self.namespace("a"), self.namespace("r"), self.namespace("b")
        self.connect(left, router, 1)
        self.connect(router, right, 2)
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "-n", left.name, "route", "add", "default", "via", "10.77.1.2")
        run("ip", "-n", right.name, "route", "add", "default", "via", "10.77.2.1")
        return left, router, right


@contextmanager
def lab() -> Iterator[Lab]:
    """A lab that is gone afterwards."""
    with ExitStack() as stack:
        yield Lab(stack)
