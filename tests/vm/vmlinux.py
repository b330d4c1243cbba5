"""The types of a kernel and its modules, out of the files that are booted and loaded."""

from __future__ import annotations

import io
import lzma
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from elftools.elf.elffile import ELFFile


def _zstd(data: bytes) -> bytes:
    # what follows the frame is none of it, about which zstd complains behind the kernel
    return subprocess.run(["zstd", "--decompress", "--quiet"], input=data, capture_output=True, check=False).stdout


_PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
}


def btf(image: Path) -> bytes:
    """The section .BTF of a bzImage."""
    data = image.read_bytes()
    for magic, unpack in _PACKED.items():
        at = data.find(magic)
        while at >= 0:
            try:
                kernel = unpack(data[at:])
            except (lzma.LZMAError, zlib.error):
                kernel = b""
            if kernel.startswith(b"\x7fELF"):
                section = ELFFile(io.BytesIO(kernel)).get_section_by_name(".BTF")
                assert section is not None, f"{image} has no BTF"
                return bytes(section.data())
            at = data.find(magic, at + 1)
    raise ValueError(f"no kernel was found in {image}")


def module_btf(modules: Path, name: str) -> bytes:
    """The section .BTF of a module; empty where there is no such module."""
    for path in modules.glob(f"**/{name}.ko*"):
        data = path.read_bytes()
        unpack = next((unpack for magic, unpack in _PACKED.items() if data.startswith(magic)), None)
        section = ELFFile(io.BytesIO(unpack(data) if unpack else data)).get_section_by_name(".BTF")
        return bytes(section.data()) if section is not None else b""
    return b""
