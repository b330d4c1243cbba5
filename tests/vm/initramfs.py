"""The first file system of a guest: busybox and the modules that the machine's files need to be mounted."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import tempfile
from pathlib import Path

from .packages import Kernel

_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_INIT = Path(__file__).with_name("init.sh")


def make(kernel: Kernel, busybox: Path, out: Path) -> None:
    """Writes the archive."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("bin", "proc", "sys", "dev", "lower", "upper", "root", "modules"):
            (root / name).mkdir()
        shutil.copy(busybox, root / "bin")
        (root / "bin/sh").symlink_to("busybox")
        shutil.copy(_INIT, root / "init")
        (root / "init").chmod(0o755)
        order = _in_order(kernel)
        for number, module in enumerate(order):
            (root / "modules" / f"{number:02}.ko").write_bytes(_unpacked(kernel.modules / module))
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        with out.open("wb") as archive:
            subprocess.run(
                ["cpio", "--create", "--format=newc", "--quiet"],
                cwd=root, input=names.encode(), stdout=archive, check=True,
            )  # fmt: skip


def _in_order(kernel: Kernel) -> list[str]:
    """Paths of the modules, each behind those that it needs; what is built in has none."""
    lines = (line.split(":") for line in (kernel.modules / "modules.dep").read_text().splitlines())
    needs = {path: rest.split() for path, rest in lines}
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    order: list[str] = []
    for name in _MODULES:
        path = by_name.get(name)
        if path is not None:
            order += [one for one in (*reversed(needs[path]), path) if one not in order]
    return order


def _unpacked(module: Path) -> bytes:
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    if module.suffix == ".zst":
        return subprocess.run(["zstd", "--decompress", "--stdout", str(module)], capture_output=True, check=True).stdout
    return module.read_bytes()
