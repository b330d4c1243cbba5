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
from ..kernel import find_bpftool

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
"""
_VERSION = """\
#pragma once
#define LINUX_VERSION_CODE {code}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
"""
_EMPTY = (
    "linux/types.h", "linux/bpf_common.h", "linux/bpf.h", "linux/log2.h", "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h", "uapi/linux/if_ether.h", "uapi/linux/ptrace.h",
)  # fmt: skip


def make(out: Path, btf: Path, release: str, libbcc: Path) -> None:
    """Writes the tree.

    Args:
        out: The folder to make; bcc is pointed at it with BCC_KERNEL_SOURCE.
        btf: The kernel's types.
        release: The kernel's release, for LINUX_VERSION_CODE.
        libbcc: bcc's library, which names the helpers that its own headers use.

    Raises:
        MissingError: There is no bpftool.
        CompileError: bpftool cannot read the BTF.
    """
    bpftool = find_bpftool()
    if bpftool is None:
        raise MissingError("bpftool is missing", "`probekit check` says how to install it")
    command = [bpftool, "btf", "dump", "file", str(btf), "format", "c"]
    try:
        types = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise CompileError(f"bpftool cannot read {btf}: {error.stderr.strip()}") from None
    named = {name.decode() for name in re.findall(rb"BPF_FUNC_(\w+)", libbcc.read_bytes())}
    missing = sorted(named - set(re.findall(r"BPF_FUNC_(\w+)", types)))
    version = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    major, minor, patch = (int(part or 0) for part in version.groups()) if version else (0, 0, 0)
    files = dict.fromkeys(_EMPTY, "#pragma once\n")
    files["vmlinux.h"] = types
    files["linux/kconfig.h"] = _KCONFIG + "".join(f"#define BPF_FUNC_{name} 0x7fffff\n" for name in missing)
    files["linux/version.h"] = _VERSION.format(code=(major << 16) + (minor << 8) + min(patch, 255))
    files["asm/page.h"] = "#pragma once\n#define PAGE_SIZE 4096\n"
    for name, text in files.items():
        path = out / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
