"""What this kernel and this machine offer, found by looking, never by version."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import platform
import time
from pathlib import Path

from attrs import frozen

from ..errors import MissingError
from . import trust
from .btf import Types
from .privileges import effective

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
KPROBE_PMU = Path("/sys/bus/event_source/devices/kprobe/type")
PRIVILEGES = "run as root (sudo), or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
WITH_BTF = "boot a kernel built with CONFIG_DEBUG_INFO_BTF; all current distributions' are"
WITH_BCC = "install your distribution's python3-bpfcc; `probekit check` has the command"
_MOUNTED = {
    Path("/proc/self/status"): "mount -t proc proc /proc",
    Path("/sys/devices/system/cpu/possible"): "mount -t sysfs sysfs /sys",
}
_MACHINES = {
    b"orig_ax": "x86_64",
    b"orig_x0": "aarch64",
    b"orig_gpr2": "s390x",
    b"orig_gpr3": "ppc64le",
}
"""By a member of struct pt_regs that no other architecture's has."""
_WITH_TOOLS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


@frozen
class KernelFacts:
    """Facts about the kernel that a plan may depend on.

    Attributes:
        release: As `uname -r` says it.
        machine: As `uname -m` says it there.
        cpus: CPUs that the kernel could ever have: the size of per-CPU maps.
        btf: BTF of the kernel's types, None where it was built without CONFIG_DEBUG_INFO_BTF.
        capabilities: Those that probekit has a use for (`privileges.NUMBERS`) and this process has.
        page_size: Bytes of a page of memory: a ring buffer takes whole ones. Kernels have 4, 16 or 64 KiB.
    """

    release: str
    machine: str
    cpus: int
    btf: Path | None
    capabilities: frozenset[str]
    page_size: int = mmap.PAGESIZE

    def pages(self, size: int) -> int:
        """How many pages hold so many bytes; for sizes and pages that are powers of two it is one, too."""
        return -(-size // self.page_size)

    @property
    def privileged(self) -> bool:
        """Whether programs can be loaded and attached at all."""
        return "CAP_SYS_ADMIN" in self.capabilities or {"CAP_BPF", "CAP_PERFMON"} <= self.capabilities

    def btf_bytes(self) -> bytes:
        """The kernel's BTF, read once; empty without one."""
        return _read_once(self.btf) if self.btf is not None else b""

    def btf_digest(self) -> str:
        """A digest of the kernel's types."""
        return _digest_once(self.btf) if self.btf is not None else ""

    def has_name(self, name: str) -> bool:
        """Whether a type, function, member or enumerator of this name is in the kernel's BTF."""
        return b"\0" + name.encode() + b"\0" in self.btf_bytes()

    def member_offset(self, module: str, struct: str, member: str) -> int | None:
        """Where in a struct of a module a member is, in bytes; None where the module is not loaded or has none such."""
        if self.btf is None:
            return None
        path = self.btf.with_name(module)
        if not path.exists():
            return None
        types = Types(path.read_bytes(), self.btf_bytes())
        found = (entry for number in types.structs(struct) for entry in types.members(number))
        return next((entry.bit // 8 for entry in found if entry.name == member), None)

    @property
    def kprobes(self) -> bool:
        """Whether it was built with kprobes (CONFIG_KPROBES)."""
        return self.has_name("register_kprobe")


@functools.cache
def _read_once(path: Path) -> bytes:
    return path.read_bytes()


@functools.cache
def _digest_once(path: Path) -> str:
    return hashlib.sha256(_read_once(path)).hexdigest()


def _capabilities() -> frozenset[str]:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return frozenset()  # in a user namespace they hold for the namespace, and not for the kernel
    return effective()


def _machine(btf: Path) -> str:
    """Whose types these are; this machine's where they do not tell."""
    names = (machine for name, machine in _MACHINES.items() if b"\0" + name + b"\0" in _read_once(btf))
    return next(names, platform.machine()) if btf.exists() else platform.machine()


def _possible_cpus() -> int:
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return int(ranges[-1].split("-")[-1]) + 1


def detect(btf: Path | None = None) -> KernelFacts:
    """Facts about the running kernel.

    Args:
        btf: Types of another kernel, to compile for it.

    Raises:
        MissingError: /proc or /sys is not mounted.
    """
    for needed, command in _MOUNTED.items():
        if not needed.exists():
            raise MissingError(f"/{needed.parts[1]} is not mounted: {needed} is missing", f"as root: {command}")
    path = btf or VMLINUX_BTF
    return KernelFacts(
        release=platform.release(),
        machine=_machine(btf) if btf else platform.machine(),
        cpus=_possible_cpus(),
        btf=path if path.exists() else None,
        capabilities=_capabilities(),
    )


@functools.cache
def libbcc_bpf() -> ctypes.CDLL | None:
    """bcc's small library, which loads and attaches but has no compiler; None where it is not installed."""
    try:
        return ctypes.CDLL("libbcc_bpf.so.0", use_errno=True)
    except OSError:
        return None


def find_bpftool() -> str | None:
    """The path of bpftool, one that nobody but this user and root can change; None where there is none such.

    Distributions keep it where only root's PATH leads. A folder that is not absolute is none of a user's choosing.
    """
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_WITH_TOOLS]
    found = (Path(folder, "bpftool") for folder in folders if folder.startswith("/"))
    return next((str(path) for path in found if trust.may_run(path)), None)


def jiffy_us() -> float:
    """A tick of the kernel, in microseconds: what its coarse clocks count (CONFIG_HZ)."""
    return time.clock_getres(getattr(time, "CLOCK_MONOTONIC_COARSE", 6)) * 1e6
