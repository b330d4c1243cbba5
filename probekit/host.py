"""The machine as plugins may look at it: files of the kernel, network namespaces, types, and what may be done here.

What the machine's users can name is bytes, and may be gone a moment later: these functions make text of the bytes, and
say plainly what is not there.
"""

from __future__ import annotations

from .machine.bpf import xdp_runs
from .machine.btf import Types
from .machine.kernel import VMLINUX_BTF, jiffy_us
from .machine.look import Machine
from .machine.namespaces import OWN, Survey, inside, number_of, survey
from .machine.outside import entries, inode, link, mounts, read, refused, text
from .machine.paths import bpf_folder
from .machine.privileges import lacked

__all__ = [
    "OWN", "VMLINUX_BTF", "Machine", "Survey", "Types", "bpf_folder", "entries", "inode", "inside", "jiffy_us",
    "lacked", "link", "mounts", "number_of", "read", "refused", "survey", "text", "xdp_runs",
]  # fmt: skip
