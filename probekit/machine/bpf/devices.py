"""The XDP program that a device has, from rtnetlink and the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

from .library import bpf, call, library
from .programs import INFO_SIZE, PROG_GET_FD_BY_ID, program_info

_FUNC_INFO_AT = 128  # in struct bpf_prog_info: btf_id, func_info_rec_size, func_info, nr_func_info


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


def _xdp_descriptor(device: str) -> int:
    number = _xdp_program_id(socket.if_nametoindex(device))
    if not number:
        raise OSError(errno.ENOENT, "the device has no XDP program")
    return bpf(PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))


def _main_function(fd: int) -> int:
    """The BTF id of a program's first function: the first record of its func_info, (offset, id)."""
    info = ctypes.create_string_buffer(INFO_SIZE)
    call(library().bpf_obj_get_info, fd, info, ctypes.byref(ctypes.c_uint32(len(info))))
    btf, size, _, count = struct.unpack_from("=IIQI", info, _FUNC_INFO_AT)
    if not btf or not count:
        raise OSError(errno.ENODATA, "the device's XDP program was loaded without BTF")
    record = ctypes.create_string_buffer(size)
    asked = ctypes.create_string_buffer(INFO_SIZE)
    struct.pack_into("=IIQI", asked, _FUNC_INFO_AT, 0, size, ctypes.addressof(record), 1)
    call(library().bpf_obj_get_info, fd, asked, ctypes.byref(ctypes.c_uint32(len(asked))))
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
