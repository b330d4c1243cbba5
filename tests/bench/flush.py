"""(e) What an interval costs with many connections: drain, decode, aggregate; and the text of a whole table after it.

The connections are real ones on loopback, both ends counted, each with one request.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from probekit import plugins
from probekit.cli import _structure
from probekit.config import Document
from probekit.errors import ProbekitError
from probekit.machine import kernel
from probekit.run import compose

SIZES = (100, 10_000, 100_000)
EACH = 8_000  # connections a process opens, both ends: below the usual limit of descriptors
ROUNDS = 5


def run() -> dict[str, Any]:
    """Milliseconds, the smallest of some rounds."""
    found, facts = plugins.discover(), kernel.detect()
    document = Document({"probe": {"latency": {"max_connections": 150_000}}})
    compiled = compose.compile_all(compose.plan(_structure(document, ("latency",), found), found, facts), facts, None)
    results = {}
    for size in SIZES:
        with ExitStack() as stack:
            (running,) = compose.begin(compiled, found, facts, stack, _raise).running
            _open(size // 2, stack)
            flushes, tables, rows = [], [], 0
            for _ in range(ROUNDS):
                began = time.perf_counter()
                running.drain()
                figures = running.figures()
                flushed = time.perf_counter()
                rows = len(figures.tables[0].key)
                flushes.append(1000 * (flushed - began))
                tables.append(1000 * (time.perf_counter() - flushed))
        results[str(size)] = {"rows": rows, "flush_ms": round(min(flushes), 1), "table_ms": round(min(tables), 1)}
    return results


def _raise(error: ProbekitError) -> None:
    raise error


def _open(connections: int, stack: ExitStack) -> None:
    """Opens connections in processes of their own, until the stack is left."""
    for first in range(0, connections, EACH):
        ours, theirs = Pipe()
        child = os.fork()
        if child == 0:
            _hold(min(EACH, connections - first), f"127.0.0.{2 + first // EACH}", theirs)
            os._exit(0)
        assert ours.recv() == "open"
        stack.callback(os.waitpid, child, 0)
        stack.callback(ours.send, "over")


def _hold(connections: int, address: str, pipe: Connection) -> None:
    held = []
    with socket.create_server((address, 0), backlog=128) as server:
        for _ in range(connections):
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            client.send(b"?")
            accepted.recv(1)
            accepted.send(b"!")
            client.recv(1)
            held += [client, accepted]
        pipe.send("open")
        pipe.recv()
