"""The latency probe attached in this process, one way after the other, and looked at whenever a test wants.

Everything here runs on any kernel that probekit supports, also where one emulated CPU is all there is: no test has an
opinion on how long something takes. A way that the kernel has not is skipped with the reason that probekit gives.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from _pytest.runner import runtestprotocol

from probekit import config, plugins
from probekit.compile import compile_plan
from probekit.drain import Slots
from probekit.drain.layout import as_dtype, round8
from probekit.errors import AttachError, ProbekitError
from probekit.export.document import document, rows
from probekit.machine import kernel
from probekit.model import Array, Batch, Columns, Compiled, Decoder, Hindrance, Planned, Snapshot
from probekit.plugins import PROBES
from probekit.run.compose import begin, plan
from probekit.run.measurement import Collector
from probekit_latency.values import HIGH_BITS, UNCOUNTED

from . import misses
from .peer import Peer

WAYS = ("fentry", "kprobe", "tracepoint")
SETTLE = 0.05
"""Seconds in which a program that runs while it is detached ends."""


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests load programs into the kernel: run ./dev test, which asks for root")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a test again, four times at most, where it failed while the kernel missed runs of programs."""
    if not isinstance(item, pytest.Function) or Path(__file__).parent not in item.path.parents:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(5):
        before = misses.noted()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        missed = misses.noted() - before
        if missed <= 0 or not any(report.failed for report in reports):
            break
        item.user_properties.append(("note", f"{item.name} failed while the kernel missed {missed} runs of programs"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class LiveProbe:
    """The latency probe, attached.

    Attributes:
        way: How.
        attached: The point taken for each observation.
        strangers: Connections of others that had an exchange and closed.
    """

    def __init__(self, way: str, stack: ExitStack, **options: Any) -> None:
        self.way = way
        found, facts = plugins.discover(), kernel.detect()
        kind = found.call(PROBES, "latency", "probekit_config", name="latency")
        table = {"probe": {"latency": {"attach": way, **options}}}
        settings = config.structure(table, ("latency",), lambda _: kind, lambda _: kind, lambda _: kind, "")
        planned: Planned = plan(settings, found, facts)[0]
        ready = [Compiled(planned, compile_plan(planned.plan, facts))]
        self._begun = begin(ready, found, facts, stack, _raise)
        (self._running,) = self._begun.running
        self._loaded = self._running.loaded
        self.strangers = 0
        sources = self._running.sources
        sources.rings = [(reader, self._without_strangers(decode)) for reader, decode in sources.rings]
        self.attached = {a.observation: a.point for a in self._loaded.attached}
        self._collector = self._begun.collector
        stack.callback(lambda: self._collector.end())
        self._release = facts.release
        self._source = next(s for s in planned.plan.sources if isinstance(s, Slots))
        self._map_slots(stack)

    def detach(self) -> None:
        """Ends the measurement: from here on nothing changes, and a snapshot is of one instant."""
        self._begun.close()
        self._loaded.detach()
        time.sleep(SETTLE)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody reads the ring buffers."""
        self._collector.end()
        yield
        self._collector = Collector([self._running.sources])
        self._collector.start()

    def _map_slots(self, stack: ExitStack) -> None:
        live = self._loaded.maps[self._source.name]
        layout = as_dtype(live.value)
        slot = np.dtype({"names": ["value"], "formats": [layout], "itemsize": round8(layout.itemsize)})
        memory = mmap.mmap(live.fd, live.spec.max_entries * slot.itemsize)
        stack.callback(memory.close)
        self._sets: Array = np.frombuffer(memory, slot)["value"]
        self._slots: Array = self._sets["connection"]
        stack.callback(self.__dict__.pop, "_sets")
        stack.callback(self.__dict__.pop, "_slots")

    def slots(self, port: int) -> list[tuple[int, ...]]:
        """Places of the live records of connections from or to a port, also of those without an exchange."""
        ports = self._slots["addresses"]
        mine = (ports["local_port"] == port) | (ports["remote_port"] == port)
        return [tuple(place) for place in np.argwhere(mine & (self._slots["socket"] != 0)).tolist()]

    def client(self, port: int) -> tuple[int, ...]:
        """The place of the record of the client whose own port this is."""
        (place,) = (n for n in self.slots(port) if self._slots["addresses"]["local_port"][n] == port)
        return place

    def split(self, port: int) -> tuple[int, int]:
        """How many requests the client of this port has had, and how many of them have their parts."""
        place = self.client(port)
        events = int(self._slots["events_received_high"][place]) >> HIGH_BITS
        events += int(self._slots["start"][place]) >> 63  # its response has begun
        return events, events - (int(self._slots["min_unsplit"][place]) & UNCOUNTED)

    @property
    def records(self) -> Array:
        """The kernel's records by set and slot, where they are: what is written here the programs see."""
        return self._slots

    def sockets(self, ports: Iterable[int]) -> set[int]:
        """The kernel's addresses of the sockets of connections from or to these ports."""
        return {int(self._slots["socket"][place]) for port in ports for place in self.slots(port)}

    def remembered(self, sockets: set[int]) -> int:
        """How many of these sockets, which were evicted, it remembers."""
        words = {(socket >> 8 | 1) % 2**35 for socket in sockets}
        return len(words & set((self._sets["away"] >> np.uint64(29)).reshape(-1).tolist()))

    def push_out_evictions(self) -> None:
        """What is remembered of evicted sockets is as if as many others as there is room for came later."""
        self._sets["away"] = 1  # no socket's

    def snapshot(self) -> Snapshot:
        """The figures as they are now."""
        self._running.drain()
        return Snapshot("latency", 0, 0, False, self._release, self._loaded.attached, self._running.figures())

    def result(self) -> dict[str, Any]:
        """The JSON document."""
        result = document(self.snapshot())
        misses.note(self, result)
        return result

    def rows(self, port: int, result: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of connections from or to a port, now or in an earlier result."""
        ends = f":{port}"
        table = (result or self.result())["connections"].values()
        return [row for row in table if row["source"].endswith(ends) or row["destination"].endswith(ends)]

    def alone(self, ports: Iterable[int], result: dict[str, Any]) -> bool:
        """Whether no connections but those of these ports had an exchange: figures of the machine are a test's own."""
        ends = {str(port) for port in ports}
        rows = result["connections"].values()
        mine = (ends & {row[end].rpartition(":")[2] for end in ("source", "destination")} for row in rows)
        return not self.strangers and all(mine)

    def _without_strangers(self, decode: Decoder) -> Decoder:
        """Leaves out others' closed connections: on a busy machine they are thousands a second, and each a row."""

        def decoder(batch: Batch) -> Columns:
            columns = decode(batch)
            if batch.source != "closed":
                return columns
            ports = (columns.values[name] for name in ("local_port", "remote_port"))
            ours = np.logical_or.reduce([(port >= PORTS[0]) & (port < PORTS[1]) for port in ports])
            ours |= columns.values["pid"] == os.getpid()
            self.strangers += int((columns.values["events"][~ours] > 0).sum())
            return attrs.evolve(columns, values={name: values[ours] for name, values in columns.values.items()})

        return decoder

    def events(self) -> list[dict[str, Any]]:
        """With mode = "events": those since somebody last looked."""
        events = self._running.stream()
        return [] if events is None else list(rows(events.table))

    def program(self, observation: str) -> int:
        """Descriptor of the program that observes something."""
        attached = (name for name, point in self.attached.items() if point is not None)
        return dict(zip(attached, self._loaded.programs, strict=True))[observation]

    @property
    def programs(self) -> list[int]:
        """Descriptors of the attached programs."""
        return self._loaded.programs


def _raise(error: ProbekitError) -> None:
    raise error


PORTS = (10_000, 32_768)
"""Of these tests' sockets, up to where the kernel takes its own from."""
_ports = itertools.count(random.randrange(PORTS[0], PORTS[1]))


def bind(end: socket.socket, host: str) -> None:
    """Binds a socket to a port that none of these tests had for long: rows are told apart by ports.

    All are below those that the kernel gives to sockets that do not ask for one.
    """
    while True:
        try:
            return end.bind((host, PORTS[0] + next(_ports) % (PORTS[1] - PORTS[0])))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


class Pair:
    """Both ends of a TCP connection on loopback, of the client's own port."""

    def __init__(self, probe: LiveProbe | None, family: int = socket.AF_INET, host: str = "127.0.0.1") -> None:
        with socket.socket(family) as listener:
            bind(listener, host)
            listener.listen(8)
            self.client = socket.socket(family)
            bind(self.client, host)
            self.client.connect(listener.getsockname()[:2])
            self.server, _ = listener.accept()
        for end in (self.client, self.server):
            end.settimeout(20)
        self.probe = probe
        self.port = int(self.client.getsockname()[1])
        self.server_port = int(self.server.getsockname()[1])

    def exchange(self, times: int = 1) -> None:
        """Requests and their responses, one after the other, a byte each."""
        for _ in range(times):
            self.request()
            self.respond()

    def request(self) -> None:
        """A byte that the server has read."""
        self.client.send(b"?")
        assert self.server.recv(9) == b"?"

    def respond(self) -> None:
        """A byte that the client has read."""
        self.server.send(b"!")
        assert self.client.recv(9) == b"!"

    def row(self, side: str) -> dict[str, Any]:
        """The one row of one end."""
        assert self.probe is not None
        (row,) = [row for row in self.probe.rows(self.port) if row["side"] == side]
        return row

    def events(self, result: dict[str, Any] | None = None) -> tuple[int, int]:
        """Exchanges of the client and of the server, now or in an earlier result; 0 for an end without a row."""
        assert self.probe is not None
        result = result or self.probe.result()  # takes half a second in an emulated machine
        found = self.probe.rows(self.port, result)
        assert len({row["side"] for row in found}) == len(found), found
        by_side = {row["side"]: int(row["events"]) for row in found}
        return by_side.get("client", 0), by_side.get("server", 0)

    def close(self) -> None:
        """Closes both ends."""
        self.client.close()
        self.server.close()


@contextlib.contextmanager
def live(way: str, **options: Any) -> Iterator[LiveProbe]:
    """The probe attached one way; skips where the kernel has not got it, and only there."""
    with ExitStack() as stack:
        try:
            probe = LiveProbe(way, stack, **options)
        except AttachError as error:
            if error.refused and all(refusal.kind is Hindrance.LACKING for refusal in error.refused):
                pytest.skip(f"not on this kernel: {' '.join(error.message.split())}")
            pytest.fail(f"{way} should be on this kernel: {error.message}")
        yield probe


@pytest.fixture(scope="session", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The way of attaching."""
    return str(request.param)


@pytest.fixture(scope="session")
def older() -> Iterator[list[Pair]]:
    """Connections that were there before the probe."""
    pairs = [Pair(None) for _ in WAYS]
    yield pairs
    for pair in pairs:
        pair.close()


@pytest.fixture(scope="session")
def probe(way: str, older: list[Pair]) -> Iterator[LiveProbe]:
    """The probe as it is by default, attached once for all tests of a way."""
    with live(way) as attached:
        yield attached


@pytest.fixture
def alone(way: str) -> Iterator[LiveProbe]:
    """A probe of the test's own, as it is by default."""
    with live(way) as attached:
        yield attached


@pytest.fixture
def pair(probe: LiveProbe) -> Iterator[Callable[..., Pair]]:
    """Makes connections that the probe sees."""
    made: list[Pair] = []

    def make(**options: Any) -> Pair:
        made.append(Pair(probe, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def peer() -> Iterator[Peer]:
    """Another process."""
    with Peer() as process:
        yield process
