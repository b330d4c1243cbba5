"""Another process that does what a test wants with a socket of the test's: real owners, threads and forks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_LIMIT = 1 << 16


class Peer:
    """The other process, from the test's side.

    Attributes:
        pid: Its process id.
    """

    def __enter__(self) -> Peer:
        """Starts it."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(60)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.pid = self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        self._ours.close()
        self._process.wait(20)

    def run(self, code: str, *sockets: socket.socket) -> Any:
        """Runs Python code there, with the sockets as `s[0]`, `s[1]` ...; what it leaves in `result`."""
        socket.send_fds(self._ours, [code.encode()], [each.fileno() for each in sockets])
        answer = self._ours.recv(_LIMIT)
        assert answer, "the other process has died"
        value, failure = json.loads(answer)
        assert failure is None, failure
        return value


def _serve(channel: socket.socket) -> None:
    Path("/proc/self/comm").write_text("peer")
    while True:
        code, descriptors, _, _ = socket.recv_fds(channel, _LIMIT, 8)
        if not code:
            return
        names: dict[str, Any] = {"s": [socket.socket(fileno=fd) for fd in descriptors], "result": None}
        for each in names["s"]:
            each.settimeout(20)  # the test's own end is as it is: the two share one file
        failure = None
        try:
            exec(code, names)
        except Exception as error:
            failure = repr(error)
        for each in names["s"]:
            each.close()
        channel.send(json.dumps([names["result"], failure]).encode())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        _serve(ours)
    os._exit(0)
