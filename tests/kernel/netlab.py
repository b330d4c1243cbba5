"""Network namespaces of a test's own, with a link between them that delays packets, and programs that use them."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket as Socket  # noqa: N812  (a method has the other name)
from typing import TypeVar

from probekit.machine.namespaces import inside

_NUMBER = itertools.count()
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_SO_TIMESTAMPNS = 35
_TUN = Path("/dev/net/tun")
HERE = Path(__file__).parent

Result = TypeVar("Result")


class Namespace:
    """A network namespace with a loopback interface."""

    def __init__(self) -> None:
        self.name = f"probekit-{os.getpid()}-{next(_NUMBER)}"
        self.path = Path("/run/netns", self.name)

    def __enter__(self) -> Namespace:
        _ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self.name)

    def ip(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)

    def do(self, function: Callable[[], Result]) -> Result:
        """Calls a function inside; sockets that it makes stay of this namespace."""
        return inside(self.path, function)

    def socket(self) -> Socket:
        return self.do(Socket)

    def listen(self, address: str = "127.0.0.1", backlog: int = 512) -> Socket:
        listener = self.socket()
        listener.bind((address, 0))
        listener.listen(backlog)
        return listener

    def sysctl(self, **values: object) -> None:
        """Sets net.ipv4.NAME."""
        self.do(lambda: [Path("/proc/sys/net/ipv4", n).write_text(str(v)) for n, v in values.items()])

    def tcp_counters(self) -> dict[str, int]:
        """The line Tcp: of /proc/net/snmp."""
        lines = self.do(lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
        return dict(zip(names, map(int, values), strict=True))

    def popen(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """A program of this folder, inside; its standard output is a pipe."""
        command = ["ip", "netns", "exec", self.name, sys.executable, str(HERE / script), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Ends a program with the block."""
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


@contextmanager
def delayed(here: Namespace, there: Namespace, seconds: float) -> Iterator[tuple[str, str]]:
    """A link between two namespaces on which every packet takes so long; the two addresses."""
    addresses = "10.97.0.1", "10.97.0.2"
    with ExitStack() as stack:
        ends = []
        for namespace, address in zip((here, there), addresses, strict=True):
            ends.append(namespace.do(_tun))
            stack.callback(os.close, ends[-1])
            namespace.ip("addr", "add", f"{address}/24", "dev", "delayed")
            namespace.ip("link", "set", "delayed", "up")
        command = [sys.executable, str(HERE / "delay.py"), *map(str, ends), str(seconds)]
        process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.PIPE, text=True)
        ready = stack.enter_context(running(process)).stdout
        assert ready is not None
        assert ready.readline()
        yield addresses


def _tun() -> int:
    if not _TUN.exists():  # nobody loads the module in a virtual machine
        subprocess.run(["modprobe", "tun"], check=True)
        _TUN.parent.mkdir(exist_ok=True)
        if not _TUN.exists():
            os.mknod(_TUN, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    end = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", b"delayed", _IFF_TUN_NO_PI))
    os.set_inheritable(end, True)
    return end


class Capture:
    """TCP packets of an interface with the kernel's time of each, from `with` to the end of its block."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        self._socket = namespace.do(lambda: Socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        namespace.do(lambda: self._socket.bind((interface, 3)))
        self.packets: list[tuple[float, int, int, int]] = []
        """Time in µs, source port, destination port, flags."""
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.1)
        self._socket.settimeout(0.1)
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                data, extra, _, _ = self._socket.recvmsg(2048, 128)
            except TimeoutError:
                return
            if not self._thread.is_alive() or data[9] != socket.IPPROTO_TCP:
                continue
            seconds, nanoseconds = struct.unpack("qq", extra[0][2][:16])
            header = (data[0] & 15) * 4
            source, destination = struct.unpack_from("!HH", data, header)
            self.packets.append((seconds * 1e6 + nanoseconds / 1e3, source, destination, data[header + 13]))

    def between(self, first: int, last: int) -> dict[tuple[int, int], float]:
        """Time from the first packet with some flags to the first answer with others, by the ports of the first."""
        began: dict[tuple[int, int], float] = {}
        took: dict[tuple[int, int], float] = {}
        for when, source, destination, flags in self.packets:
            if flags == first:
                began.setdefault((source, destination), when)
            elif flags == last and (destination, source) in began:
                took.setdefault((destination, source), when - began[destination, source])
        return took


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
