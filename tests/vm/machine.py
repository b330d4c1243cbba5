"""Boots a kernel under QEMU and runs tests in it.

KVM is not used: it is not to be had everywhere. What takes ten times longer emulated still takes seconds. A guest has
one CPU. QEMU's exit status says nothing; that the guest came to the tests, and to their end, is what it prints.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .packages import Kernel

_BEGINS, _ENDS = "probekit-guest begins", "probekit-guest ends"
_GUEST = Path(__file__).with_name("guest.sh")
_CHECKOUT = Path(__file__).resolve().parents[2]


def run(kernel: Kernel, qemu: Path, initramfs: Path, tests: list[str], results: Path, limit: float) -> str:
    """Runs tests in a guest; one that did not come so far is booted once more.

    Args:
        kernel: What to boot.
        qemu: Root of an unpacked QEMU.
        initramfs: The first file system.
        tests: Node ids.
        results: A folder that gets `reports`, a report as JSON in each line, and `console`.
        limit: Seconds.

    Returns:
        What went wrong with the guest, empty where nothing did.
    """
    results.mkdir(parents=True, exist_ok=True)
    (results / "tests").write_text("\n".join(tests) + "\n")
    printed = ""
    for _ in range(2):
        (results / "reports").unlink(missing_ok=True)
        printed = _boot(kernel, qemu, initramfs, results, limit)
        (results / "console").write_text(printed)
        if _BEGINS in printed:
            break
    else:
        return f"the guest did not come to the tests, twice:\n{_end(printed)}"
    return "" if _ENDS in printed else f"the guest died, or took longer than {limit:.0f} s:\n{_end(printed)}"


def _end(printed: str) -> str:
    return "\n".join(printed.splitlines()[-40:])


def _boot(kernel: Kernel, qemu: Path, initramfs: Path, results: Path, limit: float) -> str:
    """What the guest printed."""
    words = {
        "SCRIPT": _GUEST, "MODULES": kernel.modules, "CHECKOUT": _CHECKOUT, "PYTHON": sys.executable,
        "MARK": _BEGINS.split()[0],
    }  # fmt: skip
    arguments = [
        "console=ttyS0", "panic=-1", "quiet", "tsc=reliable", "no_timer_check", "mitigations=off",
        *(f"probekit.{name}={value}" for name, value in words.items()),
    ]  # fmt: skip
    shared = "virtio-9p-pci,fsdev={0},mount_tag={0}".format
    command = [
        str(qemu / "usr/bin/qemu-system-x86_64"),
        *(part for folder in _firmware(qemu) for part in ("-L", str(folder))),
        "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "2G",
        "-nodefaults", "-nographic", "-no-reboot", "-net", "none", "-serial", "stdio",
        "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap", "-device", shared("root"),
        "-fsdev", f"local,id=results,path={results},security_model=none", "-device", shared("results"),
        "-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", " ".join(arguments),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
    return output.decode(errors="replace")


def _firmware(qemu: Path) -> list[Path]:
    return [root / "usr/share" / name for root in (qemu, Path("/")) for name in ("qemu", "seabios")]
