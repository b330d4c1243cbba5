"""A machine of another architecture: Debian's arm64 files with Debian's Python, NumPy and bcc.

What is pure Python comes from this machine's environment. Debian's packages are unpacked, not installed: no program of
theirs can run here. What their scripts would do, as far as it is needed, is done below.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from .machine import CHECKOUT, Machine
from .packages import Archive, Kernel, kernel, qemu

SUITE = "bookworm-security"
PACKAGES = (
    "bash", "bpftool", "busybox-static", "coreutils", "iproute2", "iptables", "kmod", "mount", "nftables", "procps",
    "python3", "python3-bpfcc", "python3-numpy", "python3-redis", "util-linux",
)  # fmt: skip
_MERGED = ("bin", "sbin", "lib")
_LIBRARIES = Path("usr/lib/aarch64-linux-gnu")
_LINKS = {  # what update-alternatives would make
    _LIBRARIES / "libblas.so.3": "blas/libblas.so.3",
    _LIBRARIES / "liblapack.so.3": "lapack/liblapack.so.3",
    Path("usr/sbin/iptables"): "iptables-nft",
}
_PYTHON = ("probekit-ebpf", "pytest", "pytest-timeout", "pyelftools")
_DEBIANS = ("numpy",)
_SITE = "usr/local/lib/python3.11/dist-packages"  # bookworm's
_HERE = "/mnt/checkout"
_PROGRAM = """\
#!/usr/bin/python3
from probekit.cli import main
main()
"""


def machine(folder: Path) -> tuple[Machine, Kernel]:
    """The machine, with two CPUs, and what it boots.

    Args:
        folder: The cache, also of what the guest compiles.
    """
    archive = Archive(folder / "apt-arm64", "arm64")
    found = kernel(archive, SUITE, folder)
    root = folder / "root-arm64"
    if not root.exists():
        archive.unpack(archive.with_dependencies(PACKAGES), root, _link)
    _install(root)
    objects = folder / "objects-arm64"
    objects.mkdir(exist_ok=True)
    return Machine(
        qemu=qemu(folder, "arm"),
        program="qemu-system-aarch64",
        arguments=("-M", "virt", "-cpu", "max,pauth-impdef=on", "-smp", "2", "-m", "3G"),
        words=("console=ttyAMA0",),
        root=root,
        checkout=Path(_HERE),
        python="/usr/bin/python3",
        shares={"checkout": CHECKOUT, "modules": found.modules, "cache": objects},
        limit=7200.0,
    ), found


def _link(root: Path) -> None:
    """What is there before anything is unpacked."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for path, target in _LINKS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def _install(root: Path) -> None:
    """This project, which is mounted, and what it needs of Python, in the versions that this machine has."""
    site = root / _SITE
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    (site / "checkout.pth").write_text(f"{_HERE}\n")
    for distribution in _needed():
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix not in (".so", ".pyc", ".pth"):
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(distribution.locate_file(file)), site / file)
    program = root / "usr/bin/probekit"
    program.write_text(_PROGRAM)
    program.chmod(0o755)


def _needed() -> Iterator[importlib.metadata.Distribution]:
    """Distributions that the tests import, but Debian's."""
    names, seen = list(_PYTHON), set(_DEBIANS)
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        yield distribution
        needs = map(Requirement, distribution.requires or ())
        names += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
