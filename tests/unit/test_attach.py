"""Ways of attaching and the gate as data: what they say needs neither a kernel nor root."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import pytest
from attrs import frozen

from probekit import AttachPlan, AttachPoint, Observation, attach
from probekit.attach import FIRST, LAST, Fentry, Fexit, Iterator, Kprobe, Netfilter, TcxEgress, Tracepoint, Xdp, XdpRuns
from probekit.errors import AttachError, CompileError
from probekit.load import Gate, Loaded
from probekit.machine.bpf.devices import _attributes
from probekit.model import LiveMap, MapSpec

WAYS: dict[type[AttachPoint], tuple[str, str]] = {
    Tracepoint: ("tracepoint", "typedef:btf_trace_x"), Fentry: ("fentry", "function:x"),
    Fexit: ("fexit", "function:x"), Iterator: ("iterator", "function:bpf_iter_x"), Kprobe: ("kprobe", ""),
    Xdp: ("xdp", ""), TcxEgress: ("tcx egress", ""),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_way_says_what_it_is_called_and_whose_id_it_needs(way: Any) -> None:
    point = way("x", "program")
    word, key = WAYS[way]
    assert (point.way, point.target, point.program) == (word, "x", "program")
    assert (point.btf.key if point.btf else "") == key
    assert point == way("x", "program") != way("x", "another")


def test_all_ways_have_names_of_their_own_and_kinds_that_the_kernel_knows() -> None:
    kinds = [kind for kind in vars(attach).values() if isinstance(kind, type) and issubclass(kind, AttachPoint)]
    assert len({kind.way for kind in kinds}) == len(kinds) == 12
    for kind in kinds:
        assert kind is XdpRuns or (kind.program_type, kind.attach_type) > (0, -1)


@pytest.mark.parametrize("name", ["sched:sched_switch", "syscalls/sys_enter_openat", "sys_exit_read"])
def test_names_of_tracefs_are_refused_and_those_of_the_kernel_are_not(name: str) -> None:
    with pytest.raises(CompileError):
        Tracepoint(name, "it").check()
    for way in (Tracepoint("sys_enter", "it"), Tracepoint("tcp_probe", "it"), Fentry("tcp_sendmsg", "it")):
        way.check()


def test_netfilter_hooks_are_said_in_words() -> None:
    assert Netfilter(FIRST, "it").target == "ip, ip6, all hooks, first"
    assert Netfilter(LAST, "it").target == "ip, ip6, all hooks, last"
    assert Netfilter(-300, "it", families=(2,), hooks=(1, 4)).target == "ip, input, postrouting, priority -300"


def test_a_device_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(AttachError, match="there is no device nowhere0 "):
        Xdp("nowhere0", "it").lacking(None)  # type: ignore[arg-type]
    assert Xdp("lo", "it").lacking(None) == ""  # type: ignore[arg-type]


def test_only_what_goes_through_other_namespaces_takes_more_for_that() -> None:
    assert Iterator("tcp", "it", per_namespace=True).elsewhere == ("CAP_SYS_ADMIN",)
    assert Iterator("tcp", "it").elsewhere == Fentry("x", "it").elsewhere == ()


@frozen
class Mine(AttachPoint):
    """A way that the core has not."""

    way: ClassVar[str] = "mine"
    program_type: ClassVar[int] = 99

    program: str
    place: str = "here"

    @property
    def target(self) -> str:
        return self.place

    def link(self, program: int) -> list[int]:
        return [program]


def test_a_way_of_a_package_needs_a_word_a_type_a_target_and_a_link() -> None:
    point = Mine("it")
    plan = AttachPlan(__file__, (Observation("one", (point, Fentry("x", "other"))), Observation("two", (point,))), ())  # type: ignore[arg-type]
    assert plan.programs() == ("it", "other")
    assert list(plan.points()) == [point, Fentry("x", "other"), point]
    with point.within() as within:
        assert within == (0, 0)
    assert (point.btf, point.asked, point.count(), point.lacking(None)) == (None, False, 0, "")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        AttachPoint()  # type: ignore[abstract]


def test_the_gate_is_in_front_of_a_program_and_lets_pass_what_it_is_told() -> None:
    gate = Gate()
    gate._fd = 77
    code = struct.pack("=BBhi", 0x95, 0, 0, 0)
    guarded = gate.guarded(code, -1)
    assert guarded[-8:] == code
    assert len(guarded) == 7 * 8
    assert struct.unpack_from("=BBhi", guarded, 0) == (0x18, 2 << 4, 0, 77)  # BPF_PSEUDO_MAP_VALUE of the gate's map
    assert struct.unpack_from("=BBhi", guarded, 4 * 8) == (0xB7, 0, 0, -1)  # r0 = what lets pass
    assert struct.unpack_from("=BBhi", guarded, 3 * 8)[2] == 2  # an open one leaves out these two


def test_descriptors_take_the_place_of_what_bcc_used_and_kernel_functions_are_marked() -> None:
    loaded = Loaded(None, None, None, None)  # type: ignore[arg-type]
    spec = MapSpec("counts", 1, 4, 8, 1, 0, -3, "=u4", "=u8")
    loaded.maps = {"counts": LiveMap(spec, 12, "=u8")}
    load, more = struct.pack("=BBhi", 0x18, 1 << 4 | 1, 0, -3), bytes(8)
    helper, kfunc = struct.pack("=BBhi", 0x85, 0, 0, 5), struct.pack("=BBhi", 0x85, 0, 0, 70_000)
    patched = loaded._patched(load + more + helper + kfunc)
    assert struct.unpack_from("=BBhi", patched, 0) == (0x18, 1 << 4 | 1, 0, 12)
    assert patched[8:24] == more + helper
    assert struct.unpack_from("=BBhi", patched, 24) == (0x85, 2 << 4, 0, 70_000)


def test_netlink_attributes_are_padded_and_what_is_cut_is_left_out() -> None:
    packed = struct.pack("=HH3sx", 7, 3, b"eth") + struct.pack("=HHI", 8, 0x8004, 77) + struct.pack("=HH", 2, 9)
    assert list(_attributes(packed)) == [(3, b"eth"), (4, struct.pack("=I", 77))]
    assert list(_attributes(b"\0\0")) == []
