"""Somebody else's programs that drop, made and loaded by bcc: python -m tests.live.droppers xdp|tc DEVICE.

They stay until standard input is closed, or the namespace is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = """
BPF_ARRAY(seen, u64, 1);

static __always_inline int third(void) {
  u32 zero = 0;
  u64 *count = seen.lookup(&zero);

  return count && __sync_fetch_and_add(count, 1), count && *count % 3 == 0;
}

int xdp_third(struct xdp_md *ctx) {
  void *data = (void *)(u64)ctx->data, *end = (void *)(u64)ctx->data_end;

  if (data + 14 > end || *(u16 *)(data + 12) != 0x0008)
    return XDP_PASS;
  return third() ? XDP_DROP : XDP_PASS;
}

int tc_third(struct __sk_buff *skb) {
  return skb->protocol == 0x0008 && third() ? 2 : 0; /* TC_ACT_SHOT, TC_ACT_OK */
}
"""


def main() -> None:
    """Attaches one of them, says so, and waits."""
    from tests.bench import peers

    tree = peers.header_tree()
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    from bcc import BPF

    kind, device = sys.argv[1:]
    program = BPF(text=SOURCE, cflags=[f'-DPROBEKIT_TYPES="{tree}/include/vmlinux.h"'])
    if kind == "xdp":
        program.attach_xdp(device, program.load_func(b"xdp_third", BPF.XDP), 0)
        wait()
        program.remove_xdp(device, 0)
        return
    loaded = program.load_func(b"tc_third", BPF.SCHED_CLS)
    with tempfile.TemporaryDirectory() as folder:  # tc takes a program from a file
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        try:
            pinned = Path(folder, "third")
            assert BPF.__module__
            from bcc import lib

            assert lib.bpf_obj_pin(loaded.fd, str(pinned).encode()) == 0
            subprocess.run(["tc", "qdisc", "add", "dev", device, "clsact"], check=True)
            filter_command = ["tc", "filter", "add", "dev", device, "ingress", "bpf", "direct-action"]
            subprocess.run([*filter_command, "object-pinned", str(pinned)], check=True)
        finally:
            subprocess.run(["umount", folder], check=True)
        wait()


def wait() -> None:
    """Until the test has enough."""
    print("attached", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
