"""The system calls, through libbcc_bpf: bcc's small library, which has no compiler in it.

Thin: one function a call, plain values in and out, OSError on refusal. The library is loaded with the first call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import outside
from .errors import MissingError
from .kernel import KPROBE_PMU, libbcc_bpf
from .model import Way
from .privileges import NotPermittedError

# enum bpf_prog_type and enum bpf_attach_type of the kernel's uapi/linux/bpf.h
_KPROBE, _SCHED_CLS, _XDP, _CGROUP_SKB, _TRACING, _NETFILTER = 2, 3, 6, 8, 26, 32
_KINDS = {  # program type, attach type
    Way.KPROBE: (_KPROBE, 0),
    Way.TRACEPOINT: (_TRACING, 23),
    Way.FENTRY: (_TRACING, 24),
    Way.ITERATOR: (_TRACING, 28),
    Way.FEXIT: (_TRACING, 25),
    Way.XDP_EXIT: (_TRACING, 25),
    Way.XDP: (_XDP, 37),
    Way.NETFILTER: (_NETFILTER, 45),
    Way.TCX_INGRESS: (_SCHED_CLS, 46),
    Way.TCX_EGRESS: (_SCHED_CLS, 47),
    Way.CGROUP_INGRESS: (_CGROUP_SKB, 0),
}
_KPROBE_ENTRY = 0
_PIPE = 1 << 16
_CGROUP_ROOT = 1  # its inode number, kernel/cgroup/cgroup.c
_BATCH = 1 << 16  # entries
LOG_INSTRUCTIONS, LOG_WORDS = 1, 4  # BPF_LOG_LEVEL1, BPF_LOG_STATS of the kernel's bpf_verifier.h
_LOG_SIZES = {LOG_INSTRUCTIONS: (1 << 24) - 1, LOG_WORDS: 1 << 16}  # all kernels take up to UINT_MAX >> 8
_PROG_TEST_RUN, _PROG_GET_FD_BY_ID, _LINK_CREATE, _ENABLE_STATS = 10, 13, 28, 32
_SOCKET_FILTER = 1
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every machine
_BEFORE = 1 << 3  # BPF_F_BEFORE: in front of all others
_INFO_SIZE = 256
_FUNC_INFO_AT = 128  # in struct bpf_prog_info: btf_id, func_info_rec_size, func_info, nr_func_info


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 0.6 and later, as far as it is used."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    )


def _library() -> ctypes.CDLL:
    library = libbcc_bpf()
    if library is None:
        raise MissingError(
            "bcc is missing", "install your distribution's python3-bpfcc; `probekit check` has the command"
        )
    return library


def _call(function: Callable[..., int], *arguments: Any) -> int:
    """The call's result.

    Raises:
        OSError: It is negative.
    """
    ctypes.set_errno(0)
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno() or -result
        raise OSError(code, os.strerror(code))
    return result


def create_map(kind: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int) -> int:
    """A new map's descriptor."""
    create = _library().bcc_create_map
    return _call(create, kind, name[:15].encode(), key_size, value_size, max_entries, flags)


def load_program(way: Way, name: str, code: bytes, target: int, of_program: int = 0, log: int = 0) -> tuple[int, str]:
    """A loaded program.

    Args:
        way: How it is going to be attached.
        name: Shown by bpftool.
        code: Its instructions, with the descriptors of live maps.
        target: BTF id of what it is attached to; 0 where that has none.
        of_program: Descriptor of the program that this id is of; 0 for the kernel.
        log: Whether the verifier's log is wanted: LOG_INSTRUCTIONS, or LOG_WORDS for what it says besides.

    Returns:
        Descriptor and log; the descriptor is negative with the log of a refusal.

    Raises:
        OSError: The kernel refuses it, and no log was asked for.
    """
    buffer = ctypes.create_string_buffer(_LOG_SIZES[log]) if log else None
    kind, attach_type = _KINDS[way]
    options = _LoadOptions(
        sz=ctypes.sizeof(_LoadOptions),
        attach_btf_id=target,
        attach_prog_fd=of_program,
        expected_attach_type=attach_type,
    )
    if buffer is not None:
        options.log_level, options.log_size, options.log_buf = log, len(buffer), ctypes.addressof(buffer)
    load = _library().bpf_prog_load
    arguments = (
        kind, name[:15].encode(), b"GPL", code, ctypes.c_size_t(len(code) // 8), ctypes.byref(options)
    )  # fmt: skip
    if buffer is None:
        return _call(load, *arguments), ""
    return load(*arguments), buffer.value.decode(errors="replace")


def load_filter(name: str, code: bytes) -> int:
    """A loaded program that is attached nowhere, for `test_run`.

    Raises:
        OSError: The kernel refuses it.
    """
    options = _LoadOptions(sz=ctypes.sizeof(_LoadOptions))
    count = ctypes.c_size_t(len(code) // 8)
    load = _library().bpf_prog_load
    return _call(load, _SOCKET_FILTER, name[:15].encode(), b"GPL", code, count, ctypes.byref(options))


def test_run(program: int, packet: bytes) -> None:
    """Runs a program once (BPF_PROG_TEST_RUN), on a packet that nobody sent.

    Raises:
        OSError: The kernel does not.
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("=IIIIQQII", program, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0)
    _bpf(_PROG_TEST_RUN, attributes)


def value_address(register: int, fd: int) -> bytes:
    """Instructions that load the address of an array's first value: BPF_LD_IMM64 with BPF_PSEUDO_MAP_VALUE (5.2)."""
    return struct.pack("=BBhiIi", 0x18, 2 << 4 | register, 0, fd, 0, 0)


def attach(way: Way, program: int, target: str) -> int:
    """Attaches a program; closing the descriptor that it returns detaches it, and so does the death of the process."""
    if way is Way.KPROBE:
        if not KPROBE_PMU.exists():  # the older way, through tracefs, would outlive the process
            raise OSError(errno.EOPNOTSUPP, "its kprobes would outlive the process (before 4.17)")
        name = f"probekit_{target}".encode()
        return _call(_library().bpf_attach_kprobe, program, _KPROBE_ENTRY, name, target.encode(), ctypes.c_uint64(0), 0)
    if way is Way.ITERATOR:
        return _call(_library().bcc_iter_attach, program, None, 0)
    if _KINDS[way][0] == _TRACING:
        return _call(_library().bpf_raw_tracepoint_open, None, program)
    if way is Way.CGROUP_INGRESS:
        folder = _cgroups() if target == "/" else os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _create_link(way, program, folder)
        finally:
            os.close(folder)
    device = socket.if_nametoindex(target)
    if way is Way.XDP:
        return _create_link(way, program, device)
    return _create_link(way, program, device, _BEFORE, bytes(16))


def _cgroups() -> int:
    """The root of cgroup v2 by a mount that nobody sees: `ip netns exec` hides the usual one, and some have none.

    Raises:
        NotPermittedError: That takes CAP_SYS_ADMIN, and no mount shows the root.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    try:
        context = _call(call, _FSOPEN, b"cgroup2", 1)  # FSOPEN_CLOEXEC
    except PermissionError as error:
        return _mounted_cgroups(error)
    try:
        _call(call, _FSCONFIG, context, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        return _call(call, _FSMOUNT, context, 1, 0)  # FSMOUNT_CLOEXEC
    finally:
        os.close(context)


def _mounted_cgroups(error: OSError) -> int:
    """The root of cgroup v2 where somebody mounted it."""
    for line in outside.read(Path("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        if not after.startswith("cgroup2 "):
            continue
        try:
            folder = os.open(before.split()[4], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        if os.fstat(folder).st_ino == _CGROUP_ROOT:
            return folder
        os.close(folder)
    raise NotPermittedError(error, "CAP_SYS_ADMIN") from None


def attach_to_hooks(program: int, target: str) -> list[int]:
    """Attaches a program to each netfilter hook of FAMILIES/HOOKS/PRIORITY; a descriptor each, as `attach` returns."""
    families, hooks, priority = target.split("/")
    links: list[int] = []
    try:
        for family in families.split(","):
            for hook in hooks.split(","):
                more = struct.pack("=IIiI", int(family), int(hook), int(priority), 0)
                links.append(_create_link(Way.NETFILTER, program, 0, more=more))
    except BaseException:
        for link in links:
            os.close(link)
        raise
    return links


def _create_link(way: Way, program: int, at: int, flags: int = 0, more: bytes = b"") -> int:
    """BPF_LINK_CREATE, which the library has no function for: union bpf_attr's part `link_create`."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, at, _KINDS[way][1], flags) + more)


def _bpf(command: int, attributes: bytes) -> int:
    """The system call itself.

    Raises:
        OSError: The kernel refuses, or the call's number on this machine is not known.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known")
    call = ctypes.CDLL(None, use_errno=True).syscall
    return _call(call, number, command, ctypes.c_char_p(attributes), len(attributes))


def xdp_program(device: str) -> tuple[int, int]:
    """The XDP program that a device has.

    Returns:
        Its descriptor, to be closed, and the BTF id of its main function.

    Raises:
        OSError: It has none, or one whose types are not known.
    """
    fd = _xdp_descriptor(device)
    try:
        return fd, _main_function(fd)
    except BaseException:
        os.close(fd)
        raise


def xdp_runs(device: str) -> int:
    """How often the XDP program of a device has run while somebody held `enable_stats`, whoever loaded it.

    A program that is attached to several devices is counted for all of them.

    Raises:
        OSError: The device has none.
    """
    fd = _xdp_descriptor(device)
    try:
        return program_info(fd)["run_count"]
    finally:
        os.close(fd)


def enable_stats() -> int:
    """The kernel counts runs of all programs until the descriptor is closed (BPF_ENABLE_STATS, 5.8).

    Raises:
        OSError: It does not.
    """
    return _bpf(_ENABLE_STATS, struct.pack("=I", 0))


def _xdp_descriptor(device: str) -> int:
    number = _xdp_program_id(socket.if_nametoindex(device))
    if not number:
        raise OSError(errno.ENOENT, "the device has no XDP program")
    return _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))


def _main_function(fd: int) -> int:
    """The BTF id of a program's first function: the first record of its func_info, (offset, id)."""
    info = ctypes.create_string_buffer(_INFO_SIZE)
    _call(_library().bpf_obj_get_info, fd, info, ctypes.byref(ctypes.c_uint32(len(info))))
    btf, size, _, count = struct.unpack_from("=IIQI", info, _FUNC_INFO_AT)
    if not btf or not count:
        raise OSError(errno.ENODATA, "the device's XDP program was loaded without BTF")
    record = ctypes.create_string_buffer(size)
    asked = ctypes.create_string_buffer(_INFO_SIZE)
    struct.pack_into("=IIQI", asked, _FUNC_INFO_AT, 0, size, ctypes.addressof(record), 1)
    _call(_library().bpf_obj_get_info, fd, asked, ctypes.byref(ctypes.c_uint32(len(asked))))
    return int(struct.unpack_from("=II", record)[1])


def _xdp_program_id(ifindex: int) -> int:
    """From rtnetlink: RTM_GETLINK of one device, IFLA_XDP, IFLA_XDP_PROG_ID; 0 where it has none."""
    get_link, request_flag, ifla_xdp, prog_id = 18, 1, 43, 4
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, ifindex, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.send(struct.pack("=IHHII", 16 + len(body), get_link, request_flag, 1, 0) + body)
        answer = link.recv(1 << 16)
    for kind, value in _attributes(answer[32:]):
        if kind == ifla_xdp:
            for nested, number in _attributes(value):
                if nested == prog_id:
                    return int(struct.unpack("=I", number)[0])
    return 0


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Netlink attributes: length and kind, 2 bytes each, then the value, rounded up to 4 bytes."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def iterate(link: int) -> None:
    """Runs an attached iterator over all objects: those of the network namespace of the calling thread."""
    descriptor = _call(_library().bcc_iter_create, link)
    try:
        while os.read(descriptor, _PIPE):  # it writes nothing, but may ask to be read again
            pass
    finally:
        os.close(descriptor)


def update(fd: int, key: bytes, value: bytes) -> None:
    """Sets the value of a map's key."""
    _call(_library().bpf_update_elem, fd, key, value, ctypes.c_ulonglong(0))


def lookup(fd: int, key: bytes, size: int) -> bytes:
    """A map's value; of a per-CPU map, of all CPUs, each rounded up to 8 bytes."""
    value = ctypes.create_string_buffer(size)
    _call(_library().bpf_lookup_elem, fd, key, value)
    return value.raw


def items(fd: int, key_size: int, value_size: int, entries: int) -> tuple[bytes, bytes]:
    """All keys and all values of a hash, in batches where the kernel can, else one by one."""
    try:
        return _items_in_batches(fd, key_size, value_size, entries)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, 524):  # 524: ENOTSUPP, the kernel's own
            raise
    return _items_one_by_one(fd, key_size, value_size)


def _items_in_batches(fd: int, key_size: int, value_size: int, entries: int) -> tuple[bytes, bytes]:
    keys, values = bytearray(), bytearray()
    size = min(max(entries, 1024), _BATCH)
    position, following = None, ctypes.create_string_buffer(max(key_size, 8))
    while True:
        key_buffer, value_buffer = (ctypes.create_string_buffer(size * each) for each in (key_size, value_size))
        count = ctypes.c_uint32(size)
        try:
            _call(_library().bpf_lookup_batch, fd, position, following, key_buffer, value_buffer, ctypes.byref(count))
            more = True
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a batch has to hold the fullest bucket
                size *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            more = False
        keys += key_buffer.raw[: count.value * key_size]
        values += value_buffer.raw[: count.value * value_size]
        if not more:
            return bytes(keys), bytes(values)
        position = ctypes.create_string_buffer(following.raw)


def _items_one_by_one(fd: int, key_size: int, value_size: int) -> tuple[bytes, bytes]:
    library = _library()
    keys, values = bytearray(), bytearray()
    key, following = None, ctypes.create_string_buffer(key_size)
    while (
        library.bpf_get_next_key(fd, key, following) == 0
        if key
        else library.bpf_get_first_key(fd, following, key_size) == 0
    ):
        key = ctypes.create_string_buffer(following.raw, key_size)
        value = ctypes.create_string_buffer(value_size)
        if library.bpf_lookup_elem(fd, key, value) == 0:
            keys += key.raw
            values += value.raw
    return bytes(keys), bytes(values)


def program_info(fd: int) -> dict[str, int]:
    """What the kernel knows of a program.

    Returns:
        `id`, `jited_bytes`, `translated_bytes`, `run_time_ns`, `run_count` (both only counted while the sysctl
        kernel.bpf_stats_enabled is on) and `missed`: runs left out because the program was running already
        (`recursion_misses`, 5.12 and later; 0 before). Offsets: struct bpf_prog_info.
    """
    info = ctypes.create_string_buffer(_INFO_SIZE)
    _call(_library().bpf_obj_get_info, fd, info, ctypes.byref(ctypes.c_uint32(len(info))))
    number, jited, translated = struct.unpack_from("=I8xII", info, 4)
    run_time, run_count, missed = struct.unpack_from("=QQQ", info, 192)
    return {
        "id": number, "jited_bytes": jited, "translated_bytes": translated,
        "run_time_ns": run_time, "run_count": run_count, "missed": missed,
    }  # fmt: skip


def locked_bytes(fd: int) -> int:
    """Memory that a map takes, as the kernel says it in fdinfo."""
    with Path(f"/proc/self/fdinfo/{fd}").open() as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)
