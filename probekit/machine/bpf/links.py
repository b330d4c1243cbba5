"""Links: what attaches a program, until its descriptor is closed, or the process dies."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from .. import outside
from ..privileges import NotPermittedError
from .library import bpf, call, library
from .programs import LINK_CREATE

_KPROBE_ENTRY = 0
_PIPE = 1 << 16
_CGROUP_ROOT = 1  # its inode number, kernel/cgroup/cgroup.c
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every machine


def open_traced(program: int) -> int:
    """Attaches a program that was loaded for what it is attached to: BPF_RAW_TRACEPOINT_OPEN."""
    return call(library().bpf_raw_tracepoint_open, None, program)


def attach_iterator(program: int) -> int:
    """Attaches an iterator; `iterate` runs it."""
    return call(library().bcc_iter_attach, program, None, 0)


def attach_kprobe(program: int, function: str) -> int:
    """Attaches a program to the beginning of a kernel function, by a perf event."""
    name = f"probekit_{function}".encode()
    return call(library().bpf_attach_kprobe, program, _KPROBE_ENTRY, name, function.encode(), ctypes.c_uint64(0), 0)


def cgroup_root() -> int:
    """The root of cgroup v2 by a mount that nobody sees: `ip netns exec` hides the usual one, and some have none.

    Raises:
        NotPermittedError: That takes CAP_SYS_ADMIN, and no mount shows the root.
    """
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    try:
        context = call(syscall, _FSOPEN, b"cgroup2", 1)  # FSOPEN_CLOEXEC
    except PermissionError as error:
        return _mounted_cgroups(error)
    try:
        call(syscall, _FSCONFIG, context, 6, None, None, 0)  # FSCONFIG_CMD_CREATE
        return call(syscall, _FSMOUNT, context, 1, 0)  # FSMOUNT_CLOEXEC
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


def create_link(program: int, at: int, attach_type: int, flags: int = 0, more: bytes = b"") -> int:
    """BPF_LINK_CREATE, which the library has no function for: union bpf_attr's part `link_create`.

    Args:
        program: Descriptor.
        at: Descriptor or number of what it is attached to.
        attach_type: `enum bpf_attach_type`.
        flags: Of this kind of link.
        more: What follows in that part for this kind of link.
    """
    return bpf(LINK_CREATE, struct.pack("=IIII", program, at, attach_type, flags) + more)


def iterate(link: int) -> None:
    """Runs an attached iterator over all objects: those of the network namespace of the calling thread."""
    descriptor = call(library().bcc_iter_create, link)
    try:
        while os.read(descriptor, _PIPE):  # it writes nothing, but may ask to be read again
            pass
    finally:
        os.close(descriptor)
