"""BTF ids, from a blob put together here and from the running kernel."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from probekit.machine.btf import Types, named_ids, target_ids

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST = range(1, 11)
_RESTRICT, _FUNC, _PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(11, 20)
_VMLINUX = Path("/sys/kernel/btf/vmlinux")


class _Blob:
    """BTF as pahole writes it: a head, types numbered from 1, strings."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = b"\0"

    def add(self, kind: int, name: str = "", vlen: int = 0, behind: int = 0, flag: int = 0) -> int:
        """A type with so many bytes behind its head; its id."""
        at = 0
        if name:
            at = self.strings.find(b"\0" + name.encode() + b"\0") + 1
            if not at:
                at = len(self.strings)
                self.strings += name.encode() + b"\0"
        # what is behind looks like the head of a function, which a reader out of step would take it for
        decoy = struct.pack("=III", at, _FUNC << 24, 1) * (behind // 12 + 1)
        self.types.append(struct.pack("=III", at, flag << 31 | kind << 24 | vlen, 1) + decoy[:behind])
        return len(self.types)

    def pack(self, magic: int = 0xEB9F, head: int = 24) -> bytes:
        types = b"".join(self.types)
        fields = (magic, 1, 0, head, 0, len(types), len(types), len(self.strings))
        return struct.pack("=HBBIIIII", *fields).ljust(head, b"\0") + types + self.strings


def _every_kind(blob: _Blob) -> None:
    blob.add(_INT, "int", behind=4)
    blob.add(_PTR)
    blob.add(_ARRAY, behind=12)
    blob.add(_STRUCT, "sock", vlen=3, behind=36)
    blob.add(_STRUCT, "empty")
    blob.add(_STRUCT, "bits", vlen=2, behind=24, flag=1)
    blob.add(_UNION, "both", vlen=2, behind=24)
    blob.add(_ENUM, "colour", vlen=3, behind=24)
    blob.add(_FWD, "later")
    blob.add(_VOLATILE)
    blob.add(_CONST)
    blob.add(_RESTRICT)
    blob.add(_PROTO, vlen=2, behind=16)
    blob.add(_VAR, "jiffies", behind=4)
    blob.add(_DATASEC, ".data", vlen=2, behind=24)
    blob.add(_FLOAT, "double")
    blob.add(_DECL_TAG, "tag", behind=4)
    blob.add(_TYPE_TAG, "user")
    blob.add(_ENUM64, "large", vlen=2, behind=24)


def _ids(types: Types, functions: list[str], tracepoints: list[str]) -> dict[str, int]:
    names = [("function", name) for name in functions]
    return target_ids(types, [*names, *(("typedef", f"btf_trace_{name}") for name in tracepoints)])


def test_functions_and_tracepoints_are_found_behind_every_kind_of_type() -> None:
    blob = _Blob()
    _every_kind(blob)
    first = blob.add(_FUNC, "tcp_sendmsg", vlen=1)
    _every_kind(blob)
    second = blob.add(_TYPEDEF, "btf_trace_tcp_probe")
    third = blob.add(_FUNC, "tcp_recvmsg", vlen=2)
    assert _ids(Types(blob.pack()), ["tcp_recvmsg", "tcp_sendmsg"], ["tcp_probe"]) == {
        "function:tcp_sendmsg": first,
        "typedef:btf_trace_tcp_probe": second,
        "function:tcp_recvmsg": third,
    }


def test_iterators_are_functions_of_a_name_of_their_own() -> None:
    blob = _Blob()
    blob.add(_FUNC, "tcp")
    there = blob.add(_FUNC, "bpf_iter_tcp")
    names = [("function", f"bpf_iter_{objects}") for objects in ("tcp", "udp")]
    assert target_ids(Types(blob.pack()), names) == {"function:bpf_iter_tcp": there}


def test_a_source_gets_the_ids_that_it_asks_for_and_the_kernel_has() -> None:
    types = Types(Path("/sys/kernel/btf/vmlinux").read_bytes())
    words = ["KFUNC_tcp_sendmsg", "TYPE_tcp_sock", "KFUNC_tcp_sock", "TYPE_no_such_thing", "KFUNC", "tcp_sendmsg"]
    assert named_ids(types, words) == {
        "KFUNC_tcp_sendmsg": _ids(types, ["tcp_sendmsg"], [])["function:tcp_sendmsg"],
        "TYPE_tcp_sock": types.structs("tcp_sock")[0],
    }


def test_names_that_are_absent_are_left_out() -> None:
    blob = _Blob()
    there = blob.add(_FUNC, "tcp_sendmsg")
    blob.add(_TYPEDEF, "btf_trace_tcp_probe")
    found = _ids(Types(blob.pack()), ["tcp_sendmsg", "tcp", "sendmsg", "tcp_sendmsg_locked"], ["tcp", "probe", "no"])
    assert found == {"function:tcp_sendmsg": there}
    assert _ids(Types(blob.pack()), [], []) == {}


def test_a_name_of_another_kind_is_not_taken() -> None:
    blob = _Blob()
    blob.add(_STRUCT, "tcp_sendmsg")
    blob.add(_FUNC, "btf_trace_tcp_probe")
    blob.add(_TYPEDEF, "tcp_sendmsg")
    assert _ids(Types(blob.pack()), ["tcp_sendmsg"], ["tcp_probe"]) == {}
    function = blob.add(_FUNC, "tcp_sendmsg")
    typedef = blob.add(_TYPEDEF, "btf_trace_tcp_probe")
    assert _ids(Types(blob.pack()), ["tcp_sendmsg"], ["tcp_probe"]) == {
        "function:tcp_sendmsg": function,
        "typedef:btf_trace_tcp_probe": typedef,
    }


def test_a_function_and_a_tracepoint_of_one_name_are_two() -> None:
    blob = _Blob()
    typedef = blob.add(_TYPEDEF, "btf_trace_sk_data_ready")
    function = blob.add(_FUNC, "sk_data_ready")
    assert _ids(Types(blob.pack()), ["sk_data_ready"], ["sk_data_ready"]) == {
        "function:sk_data_ready": function,
        "typedef:btf_trace_sk_data_ready": typedef,
    }


def test_a_longer_head_of_a_later_version_is_skipped() -> None:
    blob = _Blob()
    there = blob.add(_FUNC, "tcp_sendmsg")
    assert _ids(Types(blob.pack(head=32)), ["tcp_sendmsg"], []) == {"function:tcp_sendmsg": there}


@pytest.mark.parametrize("magic", [0, 0x9FEB, 0xEB9E])
def test_another_magic_number_is_not_btf(magic: int) -> None:
    blob = _Blob()
    blob.add(_FUNC, "tcp_sendmsg")
    with pytest.raises(ValueError, match="not BTF"):
        _ids(Types(blob.pack(magic)), ["tcp_sendmsg"], [])


@pytest.mark.parametrize("size", [0, 1, 23])
def test_less_than_a_head_is_not_btf(size: int) -> None:
    with pytest.raises(ValueError, match="not BTF"):
        _ids(Types(_Blob().pack()[:size]), [], [])


@pytest.mark.skipif(not _VMLINUX.exists() or shutil.which("bpftool") is None, reason="needs BTF and bpftool")
def test_the_ids_of_the_running_kernel_are_those_that_bpftool_shows() -> None:
    command = ["bpftool", "btf", "dump", "file", str(_VMLINUX)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    shown = {}
    for key, words in (
        ("function:tcp_sendmsg", "FUNC 'tcp_sendmsg' "),
        ("typedef:btf_trace_tcp_probe", "TYPEDEF 'btf_trace_tcp_probe' "),
        ("typedef:btf_trace_inet_sock_set_state", "TYPEDEF 'btf_trace_inet_sock_set_state' "),
    ):
        shown[key] = next(int(line[1:].split("]")[0]) for line in lines if words in line)
    found = _ids(
        Types(_VMLINUX.read_bytes()), ["tcp_sendmsg", "no_such_function"], ["tcp_probe", "inet_sock_set_state"]
    )
    assert found == shown
