"""Programs: loaded, run once, asked about."""

from __future__ import annotations

import ctypes
import struct

from .library import bpf, call, library

LOG_INSTRUCTIONS, LOG_WORDS = 1, 4  # BPF_LOG_LEVEL1, BPF_LOG_STATS of the kernel's bpf_verifier.h
_LOG_SIZES = {LOG_INSTRUCTIONS: (1 << 24) - 1, LOG_WORDS: 1 << 16}  # all kernels take up to UINT_MAX >> 8
_PROG_TEST_RUN, PROG_GET_FD_BY_ID, LINK_CREATE, _ENABLE_STATS = 10, 13, 28, 32
_SOCKET_FILTER = 1
INFO_SIZE = 256


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


def load_program(
    kind: tuple[int, int], name: str, code: bytes, target: int, of_program: int = 0, log: int = 0
) -> tuple[int, str]:
    """A loaded program.

    Args:
        kind: `enum bpf_prog_type`, and the `enum bpf_attach_type` that it expects.
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
    options = _LoadOptions(
        sz=ctypes.sizeof(_LoadOptions),
        attach_btf_id=target,
        attach_prog_fd=of_program,
        expected_attach_type=kind[1],
    )
    if buffer is not None:
        options.log_level, options.log_size, options.log_buf = log, len(buffer), ctypes.addressof(buffer)
    load = library().bpf_prog_load
    arguments = (
        kind[0], name[:15].encode(), b"GPL", code, ctypes.c_size_t(len(code) // 8), ctypes.byref(options)
    )  # fmt: skip
    if buffer is None:
        return call(load, *arguments), ""
    return load(*arguments), buffer.value.decode(errors="replace")


def load_filter(name: str, code: bytes) -> int:
    """A loaded program that is attached nowhere, for `test_run`.

    Raises:
        OSError: The kernel refuses it.
    """
    options = _LoadOptions(sz=ctypes.sizeof(_LoadOptions))
    count = ctypes.c_size_t(len(code) // 8)
    load = library().bpf_prog_load
    return call(load, _SOCKET_FILTER, name[:15].encode(), b"GPL", code, count, ctypes.byref(options))


def test_run(program: int, packet: bytes) -> None:
    """Runs a program once (BPF_PROG_TEST_RUN), on a packet that nobody sent.

    Raises:
        OSError: The kernel does not.
    """
    data = ctypes.create_string_buffer(packet, len(packet))
    attributes = struct.pack("=IIIIQQII", program, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0)
    bpf(_PROG_TEST_RUN, attributes)


def value_address(register: int, fd: int) -> bytes:
    """Instructions that load the address of an array's first value: BPF_LD_IMM64 with BPF_PSEUDO_MAP_VALUE (5.2)."""
    return struct.pack("=BBhiIi", 0x18, 2 << 4 | register, 0, fd, 0, 0)


def enable_stats() -> int:
    """The kernel counts runs of all programs until the descriptor is closed (BPF_ENABLE_STATS, 5.8).

    Raises:
        OSError: It does not.
    """
    return bpf(_ENABLE_STATS, struct.pack("=I", 0))


def program_info(fd: int) -> dict[str, int]:
    """What the kernel knows of a program.

    Returns:
        `id`, `jited_bytes`, `translated_bytes`, `run_time_ns`, `run_count` (both only counted while the sysctl
        kernel.bpf_stats_enabled is on) and `missed`: runs left out because the program was running already
        (`recursion_misses`, 5.12 and later; 0 before). Offsets: struct bpf_prog_info.
    """
    info = ctypes.create_string_buffer(INFO_SIZE)
    call(library().bpf_obj_get_info, fd, info, ctypes.byref(ctypes.c_uint32(len(info))))
    number, jited, translated = struct.unpack_from("=I8xII", info, 4)
    run_time, run_count, missed = struct.unpack_from("=QQQ", info, 192)
    return {
        "id": number, "jited_bytes": jited, "translated_bytes": translated,
        "run_time_ns": run_time, "run_count": run_count, "missed": missed,
    }  # fmt: skip
