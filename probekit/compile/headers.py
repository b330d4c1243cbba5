"""A header tree that bcc accepts, made from a kernel's BTF, so that no kernel-headers package is needed.

bcc includes `include/linux/kconfig.h` of the kernel's source folder before anything else, then its own bpf.h and
helpers.h. Ours brings the kernel's types in (vmlinux.h, or what `prune` left of it), keeps bcc's bpf.h out by defining
its guard, and defines what helpers.h and probes expect that BTF has not: macros, and the numbers of helpers that are
younger than the kernel.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ..errors import CompileError, MissingError
from ..machine import outside
from ..machine.kernel import find_bpftool
from . import process

# bcc inserts bpf_probe_read_kernel where it finds that name in kallsyms, which only root is shown, and bpf_probe_read
# elsewhere, which programs of many kinds may not call: an object has to be the same whoever compiles it.
# preserve_access_index is off because bcc, not a loader, knows the offsets: they are this kernel's.
_KCONFIG = """\
#pragma once
#define CONFIG_BPF_SYSCALL 1
#define BPF_NO_PRESERVE_ACCESS_INDEX
#define __LINUX_BPF_H__
#define _UAPI__LINUX_BPF_H__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wunknown-attributes"
#pragma clang diagnostic ignored "-Wmissing-declarations"
#pragma clang diagnostic ignored "-Wduplicate-decl-specifier"
#include PROBEKIT_TYPES
#pragma clang diagnostic pop
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
#define roundup_pow_of_two(n) ((n) < 2 ? 1UL : 1UL << (64 - __builtin_clzl((n) - 1)))
#define BPF_FUNC_probe_read BPF_FUNC_probe_read_kernel
"""
_GUARD = "__VMLINUX_H__"
_VERSION = """\
#pragma once
#define LINUX_VERSION_CODE {code}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
"""
_EMPTY = (
    "linux/types.h", "linux/bpf_common.h", "linux/bpf.h", "linux/log2.h", "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h", "uapi/linux/if_ether.h", "uapi/linux/ptrace.h",
)  # fmt: skip


def make(out: Path, btf: Path, release: str, libbcc: Path, page_size: int) -> None:
    """Writes the tree.

    Args:
        out: The folder to make; bcc is pointed at it with BCC_KERNEL_SOURCE.
        btf: The kernel's types.
        release: The kernel's release, for LINUX_VERSION_CODE.
        libbcc: bcc's library, which names the helpers that its own headers use.
        page_size: Bytes.

    Raises:
        MissingError: There is no bpftool.
        CompileError: bpftool cannot read the BTF.
    """
    bpftool = find_bpftool()
    if bpftool is None:
        raise MissingError("bpftool is missing", "`probekit check` says how to install it")
    types = _types(bpftool, btf)
    named = {name.decode() for name in re.findall(rb"BPF_FUNC_(\w+)", libbcc.read_bytes())}
    missing = sorted(named - set(re.findall(r"BPF_FUNC_(\w+)", types)))
    version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    major, minor, patch = (int(part or 0) for part in version.groups()) if version else (0, 0, 0)
    files = dict.fromkeys(_EMPTY, "#pragma once\n")
    files["vmlinux.h"] = types
    files["linux/kconfig.h"] = _KCONFIG + "".join(f"#define BPF_FUNC_{name} 0x7fffff\n" for name in missing)
    files["linux/version.h"] = _VERSION.format(code=(major << 16) + (minor << 8) + min(patch, 255))
    files["asm/page.h"] = f"#pragma once\n#define PAGE_SIZE {page_size}\n"
    for name, content in files.items():
        path = out / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _types(bpftool: str, btf: Path) -> str:
    """The kernel's types as C.

    Raises:
        CompileError: bpftool fails, does not end, or writes something else.
    """
    command = [bpftool, "btf", "dump", "file", str(btf), "format", "c"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=process.LIMIT_SECONDS, env=process.environment()
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"{bpftool} has not come to an end within {error.timeout:g} s of reading {btf}, and was killed",
            "run `bpftool btf dump file FILE format c` by hand to see what keeps it",
        ) from None
    except OSError as error:
        raise CompileError(f"{bpftool} cannot be run: {error.strerror}", "install it again") from None
    types = outside.text(done.stdout)
    if done.returncode or _GUARD not in types:
        told = outside.text(done.stderr).strip() or f"it ends with status {done.returncode} and writes no types"
        raise CompileError(f"{bpftool} cannot read {btf}: {told}", "`probekit check` says how to install bpftool")
    return types
