"""Boots a kernel under QEMU and runs tests in it.

KVM is not used: it is not to be had everywhere, and never for another architecture. What takes ten times longer
emulated still takes seconds. QEMU's exit status says nothing; that the guest came to the tests, and to their end, is
what it prints.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from attrs import field, frozen

from .packages import Kernel

CHECKOUT = Path(__file__).resolve().parents[2]
_WRITTEN = ("results", "cache")
_BEGINS, _ENDS = "probekit-guest begins", "probekit-guest ends"


@frozen
class Machine:
    """What is emulated, and whose files it has.

    Attributes:
        qemu: Root of an unpacked QEMU.
        program: Which of its programs.
        arguments: That program's, for the board.
        words: The kernel's, for the board.
        root: The guest's files, never written to.
        checkout: Where they have this project.
        python: Where they have the Python that runs the tests.
        shares: More folders by name, below /mnt.
        limit: Seconds for the tests.
    """

    qemu: Path
    program: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    root: Path = Path("/")
    checkout: Path = CHECKOUT
    python: str = sys.executable
    shares: dict[str, Path] = field(factory=dict)
    limit: float = 1800.0

    @property
    def compiles(self) -> bool:
        """Whether what is compiled here is not for it, so that it has to do that itself."""
        return "cache" in self.shares


def x86(qemu: Path) -> Machine:
    """A machine of one CPU with the files of this one."""
    return Machine(
        qemu=qemu,
        program="qemu-system-x86_64",
        arguments=("-cpu", "max", "-smp", "1", "-m", "2G"),
        words=("console=ttyS0", "tsc=reliable", "no_timer_check", "mitigations=off"),
    )


def run(kernel: Kernel, machine: Machine, initramfs: Path, tests: list[str], results: Path, limit: float) -> str:
    """Runs tests in a guest; one that did not come so far is booted once more.

    Args:
        kernel: What to boot.
        machine: What to boot it on.
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
        printed = _boot(kernel, machine, initramfs, results, limit)
        if _BEGINS in printed:
            break
    else:
        return f"the guest did not come to the tests, twice:\n{_end(printed)}"
    return "" if _ENDS in printed else f"the guest died, or took longer than {limit:.0f} s:\n{_end(printed)}"


def _end(printed: str) -> str:
    return "\n".join(printed.splitlines()[-40:])


def _boot(kernel: Kernel, machine: Machine, initramfs: Path, results: Path, limit: float) -> str:
    """What the guest printed, which is also in `console` while it prints."""
    shares = {"results": results, **machine.shares}
    words = {
        "SCRIPT": machine.checkout / "tests/vm/guest.sh", "CHECKOUT": machine.checkout, "PYTHON": machine.python,
        "MODULES": "/mnt/modules" if "modules" in shares else kernel.modules, "MARK": _BEGINS.split()[0],
        "SHARES": ",".join(shares),
    }  # fmt: skip
    arguments = ["panic=-1", "quiet", *machine.words, *(f"probekit.{name}={value}" for name, value in words.items())]
    command = [
        str(machine.qemu / "usr/bin" / machine.program),
        *(part for folder in _firmware(machine.qemu) for part in ("-L", str(folder))),
        "-accel", "tcg,thread=multi", *machine.arguments,
        "-nodefaults", "-nographic", "-no-reboot", "-net", "none", "-serial", "stdio",
        *(part for name, folder in {"root": machine.root, **shares}.items() for part in _shared(name, folder)),
        "-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", " ".join(arguments),
    ]  # fmt: skip
    console = results / "console"
    with console.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=limit, check=False
        )
    return console.read_text(errors="replace")


def _shared(name: str, folder: Path) -> tuple[str, ...]:
    """A folder that the guest can mount by that name."""
    readonly = "off" if name in _WRITTEN else "on"
    backend = f"local,id={name},path={folder},security_model=none,multidevs=remap,readonly={readonly}"
    return "-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"


def _firmware(qemu: Path) -> list[Path]:
    return [root / "usr/share" / name for root in (qemu, Path("/")) for name in ("qemu", "seabios")]
