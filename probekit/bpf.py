"""The system calls, through libbcc_bpf: bcc's small library, which has no compiler in it.

Thin: one function a call, plain values in and out, OSError on refusal. The library is loaded with the first call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import MissingError
from .kernel import KPROBE_PMU, libbcc_bpf
from .model import Way

# enum bpf_map_type, enum bpf_prog_type and enum bpf_attach_type of the kernel's uapi/linux/bpf.h
MAP_TYPE_RINGBUF = 27
PROG_TYPE_KPROBE = 2
PROG_TYPE_TRACING = 26
_ATTACH_TRACE_RAW_TP = 23
_ATTACH_TRACE_FENTRY = 24
_ATTACH_TRACE_ITER = 28
_ATTACH_TYPES = {
    Way.FENTRY: _ATTACH_TRACE_FENTRY, Way.TRACEPOINT: _ATTACH_TRACE_RAW_TP, Way.ITERATOR: _ATTACH_TRACE_ITER,
}  # fmt: skip
_KPROBE_ENTRY = 0
_PIPE = 1 << 16
_LOG_SIZE = 1 << 18


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


def load_program(way: Way, name: str, code: bytes, target: int, log: bool = False) -> tuple[int, str]:
    """A loaded program.

    Args:
        way: How it is going to be attached.
        name: Shown by bpftool.
        code: Its instructions, with the descriptors of live maps.
        target: BTF id of what it is attached to; 0 for a kprobe.
        log: Whether the verifier's log is wanted.

    Returns:
        Descriptor and log; the descriptor is negative with the log of a refusal.

    Raises:
        OSError: The kernel refuses it, and no log was asked for.
    """
    buffer = ctypes.create_string_buffer(_LOG_SIZE) if log else None
    options = _LoadOptions(sz=ctypes.sizeof(_LoadOptions), attach_btf_id=target)
    kind = PROG_TYPE_KPROBE
    if way is not Way.KPROBE:
        kind = PROG_TYPE_TRACING
        options.expected_attach_type = _ATTACH_TYPES[way]
    if buffer is not None:
        options.log_level, options.log_size, options.log_buf = 1, _LOG_SIZE, ctypes.addressof(buffer)
    load = _library().bpf_prog_load
    arguments = (
        kind, name[:15].encode(), b"GPL", code, ctypes.c_size_t(len(code) // 8), ctypes.byref(options)
    )  # fmt: skip
    if buffer is None:
        return _call(load, *arguments), ""
    return load(*arguments), buffer.value.decode(errors="replace")


def attach(way: Way, program: int, target: str) -> int:
    """Attaches a program; closing the descriptor that it returns detaches it, and so does the death of the process."""
    if way is Way.KPROBE:
        if not KPROBE_PMU.exists():  # the older way, through tracefs, would outlive the process
            raise OSError(errno.EOPNOTSUPP, "its kprobes would outlive the process (before 4.17)")
        name = f"probekit_{target}".encode()
        return _call(_library().bpf_attach_kprobe, program, _KPROBE_ENTRY, name, target.encode(), ctypes.c_uint64(0), 0)
    if way is Way.ITERATOR:
        return _call(_library().bcc_iter_attach, program, None, 0)
    return _call(_library().bpf_raw_tracepoint_open, None, program)


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
    size = max(entries, 1024)  # a batch has to hold the fullest bucket
    key_buffer, value_buffer = (
        ctypes.create_string_buffer(size * key_size),
        ctypes.create_string_buffer(size * value_size),
    )
    position, following = None, ctypes.create_string_buffer(max(key_size, 8))
    while True:
        count = ctypes.c_uint32(size)
        try:
            _call(_library().bpf_lookup_batch, fd, position, following, key_buffer, value_buffer, ctypes.byref(count))
            more = True
        except OSError as error:
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
    info = ctypes.create_string_buffer(256)
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
