"""The funnel: how many packets of each device come by each layer, and how many are not seen at the next one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from probekit import Array, Attached, Column, Table, host
from probekit.attach import XdpRuns
from probekit.host import Machine

from .values import Point


@frozen
class Step:
    """A row of the funnel.

    Attributes:
        name: As output has it.
        points: Counters that are added up.
        programs: Those that count there: one of them has to be attached.
        after: Steps that a packet comes to next, of which the first that is measured counts; each a set that is added
            up, because a packet is either delivered or forwarded.
    """

    name: str
    points: tuple[Point, ...]
    programs: tuple[str, ...]
    after: tuple[tuple[str, ...], ...] = ()


def _hook(name: str, point: Point, after: tuple[tuple[str, ...], ...]) -> tuple[Step, Step]:
    return (
        Step(name, (point,), ("hook_enter", "hook_run"), ((f"{name} passed",),)),
        Step(f"{name} passed", (Point(point + 1),), ("hook_leave", "hook_run"), after),
    )


_IN = (("received",), ("tc ingress",), ("prerouting",), ("input", "forward"), ("socket",))
_OUT = (("postrouting",), ("tc egress",), ("transmitted",))
_XDP = (Point.XDP_ABORTED, Point.XDP_DROP, Point.XDP_PASS, Point.XDP_TX, Point.XDP_REDIRECT)
XDP_PROGRAM = "xdp program"
STEPS = (
    Step(XDP_PROGRAM, (), (XDP_PROGRAM,), _IN),
    Step("xdp", _XDP, ("xdp_verdict", "xdp_own"), (("xdp passed", "xdp sent"),)),
    Step("xdp passed", (Point.XDP_PASS,), ("xdp_verdict", "xdp_own"), _IN),
    Step("xdp sent", (Point.XDP_TX, Point.XDP_REDIRECT), ("xdp_verdict",)),
    Step("received", (Point.RECEIVED,), ("received",), _IN[1:]),
    Step("tc ingress", (Point.TC_INGRESS,), ("tc_ingress",), _IN[2:]),
    *_hook("prerouting", Point.PREROUTING_ENTER, _IN[3:]),
    *_hook("input", Point.INPUT_ENTER, _IN[4:]),
    Step("socket", (Point.SOCKET,), ("socket_ingress",)),
    *_hook("forward", Point.FORWARD_ENTER, ()),
    *_hook("output", Point.OUTPUT_ENTER, _OUT),
    *_hook("postrouting", Point.POSTROUTING_ENTER, _OUT[1:]),
    Step("tc egress", (Point.TC_EGRESS,), ("tc_egress",), _OUT[2:]),
    Step("transmitted", (Point.TRANSMITTED,), ("transmitted",)),
)


def xdp_runs(machine: Machine, attached: Iterable[Attached]) -> dict[str, int]:
    """How often the XDP programs of devices ran during the run, where nothing could be attached to their end."""
    found = {}
    for entry in attached:
        if entry.point is not None and entry.point.way == XdpRuns.way:
            with contextlib.suppress(OSError):  # the program is gone
                found[entry.point.target] = machine.ask(host.xdp_runs, entry.point.target) - entry.before
    return found


def there() -> list[list[Any]]:
    """Number and name of each device of this network namespace."""
    return [[number, host.text(name)] for number, name in socket.if_nameindex()]


class Devices:
    """This network namespace's devices, by number; one that goes keeps its name, as does one that gets another.

    Args:
        machine: Is asked for them.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._names: dict[int, str] = {}
        self._there: frozenset[int] = frozenset()
        self.look()

    def look(self, seen: Mapping[int, str] | None = None) -> None:
        """Looks which there are.

        Args:
            seen: Names of devices that may have come and gone again.
        """
        with contextlib.suppress(OSError):
            now = dict(self._machine.ask(there))
            self._there = frozenset(now)
            self._names = {**(seen or {}), **now, **self._names}

    def name(self, number: int) -> str:
        """A device's name; its number where nobody knows it."""
        return self._names.get(number, f"#{number}")

    def gone(self, name: str) -> str:
        """What has become of a device that was there when its packets were counted; empty if it still is."""
        numbers = {number for number, known in self._names.items() if known == name}
        if not numbers - self._there:
            return ""
        return "the device was replaced" if numbers & self._there else "the device is gone"


def table(
    values: Mapping[str, Array], own: int, wanted: Iterable[str], programs: Collection[str],
    runs: Mapping[str, int], devices: Devices,
) -> Table:  # fmt: skip
    """Rows by device and step.

    Args:
        values: Columns of the map `layers`.
        own: Inode number of the network namespace that programs were attached in.
        wanted: Devices to show; all of this namespace where there is none.
        programs: Those that are attached.
        runs: How often the XDP program of a device ran, where nothing could be attached to its end.
        devices: Of this namespace.
    """
    counts: dict[str, dict[Point, _Sums]] = {}
    columns = (values[name].tolist() for name in ("netns", "ifindex", "layer", "ip", "buffers", "packets", "bytes"))
    for netns, ifindex, layer, ip, buffers, packets, size in zip(*columns, strict=True):
        if netns not in (0, own):
            continue
        count = counts.setdefault(devices.name(ifindex), {}).setdefault(Point(layer), [0, 0, 0, 0])
        for place, number in enumerate((packets * ip, packets * (not ip), buffers, size)):
            count[place] += number
    chosen = list(wanted) or sorted(counts)
    rows = [
        row for device in chosen for row in _rows(device, counts.get(device, {}), programs, runs, devices.gone(device))
    ]
    names = ("device", "layer", "packets", "others", "buffers", "bytes", "unseen", "share", "next")
    of = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    return Table(
        name="funnel",
        key=np.array([f"{device} {layer}" for device, layer in zip(of["device"], of["layer"], strict=True)], np.str_),
        columns=(
            Column("device", np.array(of["device"], np.str_), label=True),
            Column("layer", np.array(of["layer"], np.str_), label=True, help="in the order in which a packet comes by"),
            Column("packets", np.array(of["packets"], np.int64), total=True, help="IPv4 and IPv6"),
            Column("others", np.array(of["others"], np.int64), total=True, help="ARP and the like"),
            Column("buffers", np.array(of["buffers"], np.int64), total=True, help="one may be many packets"),
            Column("bytes", np.array(of["bytes"], np.int64), total=True, help="of all, with the headers there then"),
            Column("unseen", np.array(of["unseen"], np.float64), help="packets that the next layer did not see"),
            Column("unseen_percent", np.array(of["share"], np.float64), help="of this layer's"),
            Column("next", np.array(of["next"], np.str_), label=True, help="the next layer that was measured"),
        ),
        headline=("device", "layer", "packets", "others", "unseen", "unseen_percent", "next"),
    )


_Sums = list[int]  # packets, others, buffers, bytes
_Row = tuple[str, str, int, int, int, int, float, float, str]


def _rows(
    device: str, points: Mapping[Point, _Sums], programs: Collection[str], runs: Mapping[str, int], gone: str
) -> Iterator[_Row]:
    nothing = [0, 0, 0, 0]
    sums = {
        step.name: [sum(each) for each in zip(*(points.get(point, nothing) for point in step.points), strict=True)]
        for step in STEPS
        if any(program in programs for program in step.programs)
    }
    if device in runs:
        sums[XDP_PROGRAM] = [runs[device], 0, runs[device], 0]
    for step in STEPS:
        if step.name not in sums:
            continue
        packets, others, buffers, size = sums[step.name]
        following = next((names for names in step.after if any(name in sums for name in names)), ())
        # runs of a program do not tell IP from the rest
        arrived = sum(sums[name][0] + sums[name][1] * (step.name == XDP_PROGRAM) for name in following if name in sums)
        unseen = float(packets - arrived) if following else float("nan")
        share = 100 * unseen / packets if packets else float("nan")
        after = " + ".join(name for name in following if name in sums)
        said = "; ".join(filter(None, (after, gone)))
        yield device, step.name, packets, others, buffers, size, unseen, share, said
