"""bcc's small library, which has no compiler in it, and bpf(2) itself."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import Any

from ...errors import MissingError
from ..kernel import libbcc_bpf

ENOTSUPP = 524
"""The kernel's own (linux/errno.h), meant for nobody outside it: the C library has no words for it."""
_NO_SUPPORT = "not supported by this kernel on this architecture (ENOTSUPP)"
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


def library() -> ctypes.CDLL:
    """The library.

    Raises:
        MissingError: It is not installed.
    """
    found = libbcc_bpf()
    if found is None:
        raise MissingError(
            "bcc is missing", "install your distribution's python3-bpfcc; `probekit check` has the command"
        )
    return found


def call(function: Callable[..., int], *arguments: Any) -> int:
    """The call's result.

    Raises:
        OSError: It is negative.
    """
    ctypes.set_errno(0)
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno() or -result
        raise OSError(code, _NO_SUPPORT if code == ENOTSUPP else os.strerror(code))
    return result


def bpf(command: int, attributes: bytes) -> int:
    """The system call itself.

    Raises:
        OSError: The kernel refuses, or the call's number on this machine is not known.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known")
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    return call(syscall, number, command, ctypes.c_char_p(attributes), len(attributes))
