"""Links: what attaches a program, until its descriptor is closed."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from pathlib import Path

from ...model import Way
from .. import outside
from ..kernel import KPROBE_PMU
from ..privileges import NotPermittedError
from .library import bpf, call, library
from .programs import KINDS, LINK_CREATE, TRACING

_KPROBE_ENTRY = 0
_PIPE = 1 << 16
_CGROUP_ROOT = 1  # its inode number, kernel/cgroup/cgroup.c
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every machine
_BEFORE = 1 << 3  # BPF_F_BEFORE: in front of all others


def attach(way: Way, program: int, target: str) -> int:
    """Attaches a program; closing the descriptor that it returns detaches it, and so does the death of the process."""
    if way is Way.KPROBE:
        if not KPROBE_PMU.exists():  # the older way, through tracefs, would outlive the process
            raise OSError(errno.EOPNOTSUPP, "its kprobes would outlive the process (before 4.17)")
        name = f"probekit_{target}".encode()
        return call(library().bpf_attach_kprobe, program, _KPROBE_ENTRY, name, target.encode(), ctypes.c_uint64(0), 0)
    if way is Way.ITERATOR:
        return call(library().bcc_iter_attach, program, None, 0)
    if KINDS[way][0] == TRACING:
        return call(library().bpf_raw_tracepoint_open, None, program)
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
    return bpf(LINK_CREATE, struct.pack("=IIII", program, at, KINDS[way][1], flags) + more)


def iterate(link: int) -> None:
    """Runs an attached iterator over all objects: those of the network namespace of the calling thread."""
    descriptor = call(library().bcc_iter_create, link)
    try:
        while os.read(descriptor, _PIPE):  # it writes nothing, but may ask to be read again
            pass
    finally:
        os.close(descriptor)
