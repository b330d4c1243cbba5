"""C and the kernel's types to an object, through bcc in a process of its own. Stage 3."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import hashlib
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import CompileError, MissingError
from ..machine import btf
from ..machine.btf import Types, named_ids, target_ids
from ..machine.kernel import WITH_BCC, WITH_BTF, KernelFacts, libbcc_bpf
from ..model import AttachPlan, Object
from . import agreement, contents, headers, layouts, messages, process, prune, scratch, sources
from .cache import Cache, default_folder

_FORMAT = "6"  # changes whenever an object of an older probekit cannot be loaded any more
_RELEASE = "LINUX_VERSION_CODE"
_BTF = Path(btf.__file__)
_ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)
"""Why nothing can be written to a folder, though perhaps to another one."""


def compile_plan(plan: AttachPlan, kernel: KernelFacts, cache: Cache | None = None) -> Object:
    """The object of a plan, from the cache where it is there.

    Args:
        plan: What to compile.
        kernel: The kernel to compile for.
        cache: Where objects are kept.

    Raises:
        MissingError: bcc, bpftool, the kernel's BTF, or room for temporary files is missing.
        CompileError: bcc refuses the source, the compiler fails, or plan and source do not agree.
    """
    agreement.check_plan(plan)
    if kernel.btf is None:
        raise MissingError("this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)", WITH_BTF)
    cache = cache or Cache(default_folder())
    cache.prepare()
    cache.refuse_foreign_parents()
    for place in _places(cache):
        scratch.sweep(place)
    libbcc = find_libbcc()
    version = _compiler(libbcc)
    key = object_key(plan, kernel)
    compiled = cache.load(key, version)
    if compiled is not None:
        with contextlib.suppress(CompileError):  # which sources a plan drains is no part of the key
            agreement.check(plan, compiled)
            return sources.located(compiled, plan)
    cache.remove_unused()
    compiled = _somewhere(cache, functools.partial(_made, plan, kernel, cache, libbcc, version, key))
    agreement.check(plan, compiled)
    with contextlib.suppress(MissingError):  # the next start compiles again; this one need not fail
        cache.store(compiled)
    return sources.located(compiled, plan)


def _places(cache: Cache) -> list[Path]:
    """Folders for temporary files, best first."""
    try:
        return [Path(tempfile.gettempdir()), cache.folder]
    except OSError:  # there is none, or all of them are full
        return [cache.folder]


def _somewhere(cache: Cache, make: Callable[[Path], Object]) -> Object:
    """What is made in a folder for temporary files: the system's, or where nothing can be written there, the cache."""
    faults = []
    for place in _places(cache):
        try:
            with scratch.folder(place) as folder:
                return make(folder)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            faults.append(f"{place}: {error.strerror}")
    raise MissingError(
        f"there is no room for temporary files ({'; '.join(faults)})",
        "set TMPDIR to a folder that can be written and has 10 MB left",
    )


def _made(
    plan: AttachPlan, kernel: KernelFacts, cache: Cache, libbcc: Path, version: str, key: str, folder: Path
) -> Object:
    """Compiles for a kernel, first with the types that the source seems to need."""
    tree = _tree(kernel, cache, libbcc, version, folder)
    types = Types(kernel.btf_bytes())
    header = folder / "types.h"
    header.write_text(_needed_types(tree, plan, libbcc, types))
    try:
        return _compile(plan, types, tree, header, key, version)
    except _RefusedError:
        header.write_text(_all_types(tree, plan, types))
        return _compile(plan, types, tree, header, key, version)


def _tree(kernel: KernelFacts, cache: Cache, libbcc: Path, version: str, folder: Path) -> Path:
    """The kernel's headers, kept where they can be."""
    assert kernel.btf is not None
    make = functools.partial(
        headers.make, btf=kernel.btf, release=kernel.release, libbcc=libbcc, page_size=kernel.page_size
    )
    key = _digest(kernel.btf_digest(), kernel.release, kernel.page_size, version, Path(headers.__file__).read_bytes())
    try:
        return cache.tree(key, make)
    except OSError as error:
        if error.errno not in _ELSEWHERE:
            raise
    make(folder)
    return folder


class _RefusedError(CompileError):
    """bcc refuses the source as it is; with other types it may not."""


def load_object(plan: AttachPlan, kernel: KernelFacts, folder: Path) -> Object:
    """The object of a plan from a folder that `probekit compile` wrote, on a machine that may have no compiler.

    Raises:
        MissingError: There is none for this plan and this kernel, or it may have been changed by others.
    """
    agreement.check_plan(plan)
    key = object_key(plan, kernel)
    compiled = Cache(folder).load(key)
    if compiled is None and Cache(folder).has(key):
        raise MissingError(
            f"{folder}/{key}.object is damaged, or may have been changed by others than user {os.geteuid()}",
            "make it again with `probekit compile`; the folder and its files have to belong to the user who runs, and "
            "to be writable by nobody else",
        )
    if compiled is None:
        raise MissingError(
            f"{folder} has no object for this kernel, configuration and version of {plan.source.name}",
            "make one with `probekit compile ... --config FILE --btf BTF --output DIR`; the folder and its files have "
            "to belong to the user who runs, and to be writable by nobody else",
        )
    agreement.check(plan, compiled)
    return sources.located(compiled, plan)


def object_key(plan: AttachPlan, kernel: KernelFacts) -> str:
    """A digest of all that an object depends on but the version of bcc.

    Raises:
        CompileError: The source includes what cannot be known without compiling it.
    """
    words = _words(plan)
    return _digest(
        _FORMAT, _own_code(), sys.byteorder, kernel.machine, kernel.page_size, kernel.btf_digest(),
        kernel.release if _RELEASE in words else "", sorted(plan.macros().items()), plan.programs(),
        _targets(plan),
        *(part for path in sources.files(plan) for part in (sources.portable(plan, str(path)), path.read_bytes())),
    )  # fmt: skip


@functools.cache
def _own_code() -> str:
    """A digest of the code that objects are made by."""
    return _digest(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))), _BTF.read_bytes())


def _compiler(libbcc: Path) -> str:
    """What tells one bcc and LLVM from another: their libraries."""
    return ", ".join(_libraries(libbcc.resolve()))


def _libraries(libbcc: Path) -> Iterator[str]:
    for path in (libbcc, *sorted(libbcc.parent.glob("libclang*.so*")), *sorted(libbcc.parent.glob("libLLVM*.so*"))):
        status = path.stat()
        yield f"{path.name}, {status.st_size} bytes of {status.st_mtime_ns}"


def find_libbcc() -> Path:
    """bcc's library, found without loading it.

    Raises:
        MissingError: It is not installed.
    """
    if libbcc_bpf() is not None:
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.rpartition(" ")[2]
            if "/libbcc_bpf.so" in path:
                library = Path(path).with_name("libbcc.so.0")
                if library.exists():
                    return library
    raise MissingError("bcc is missing", WITH_BCC)


def _targets(plan: AttachPlan) -> list[tuple[str, str]]:
    """What the plan's programs are attached to by its BTF id."""
    return sorted({(point.btf.kind, point.btf.name) for point in plan.points() if point.btf is not None})


def _digest(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _needed_types(tree: Path, plan: AttachPlan, libbcc: Path, types: Types) -> str:
    include = tree / "include"
    words = _words(plan, include / "linux/kconfig.h") | prune.words_of_library(libbcc.read_bytes())
    return layouts.exact(prune.prune((include / "vmlinux.h").read_text(), words), types)


def _all_types(tree: Path, plan: AttachPlan, types: Types) -> str:
    return layouts.exact((tree / "include" / "vmlinux.h").read_text(), types, asserted=_words(plan))


def _words(plan: AttachPlan, *more: Path) -> set[str]:
    return prune.words_of(path.read_bytes() for path in (*sources.files(plan), *more))


def _compile(plan: AttachPlan, types: Types, tree: Path, header: Path, key: str, compiler: str) -> Object:
    text = sources.text(plan)
    request = {
        "source": str(plan.source),
        "text": text.written,
        "cflags": [
            f'-DPROBEKIT_TYPES="{header}"',
            "-fms-extensions",  # kernels from 7 on embed a named struct without naming the member
            *(f"-I{path}" for path in sources.folders(plan)),
            *(f"-D{name}={value}" for name, value in plan.macros().items()),
            *(f"-D{name}={number}" for name, number in named_ids(types, _words(plan)).items()),
        ],
        "headers": str(tree),
    }
    answer = process.ask(request)
    if answer.refused:
        raise _RefusedError(*messages.explain(answer.said, text, sources.files(plan)))
    try:
        return _object(answer, plan, text, types, key, compiler)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # whatever it is, it is no answer
        raise CompileError(*process.nonsense(plan.source, str(error))) from None


def _object(
    answer: process.Answer, plan: AttachPlan, text: sources.Text, types: Types, key: str, compiler: str
) -> Object:
    document = answer.document
    files, lines = _lines(document["lines"], plan, text, answer.said)
    return contents.from_json({
        "key": key,
        "compiler": compiler,
        "maps": document["maps"],
        "programs": document["programs"],
        "targets": target_ids(types, _targets(plan)),
        "files": files,
        "lines": lines,
    })  # fmt: skip


def _lines(lines: Any, plan: AttachPlan, text: sources.Text, said: str) -> tuple[list[str], dict[str, str]]:
    """`files` and `lines` of an object as JSON, of what the worker says about the source that bcc rewrote."""
    source = plan.source
    written = messages.origins(text.written, messages.split(said, source)[1])
    files: dict[str, int] = {}
    packed = {}
    for name, entries in lines.items():
        records = b""
        for instruction, file, line in entries:
            if file == str(source) and 0 < line <= len(written):
                file, line = text.place(written[line - 1])
            place = files.setdefault(sources.portable(plan, file), len(files))
            try:
                records += struct.pack("=III", instruction, place, line)
            except struct.error as error:
                raise ValueError(f"lines of {name}: {error}") from None
        packed[name] = base64.b64encode(records).decode()
    return list(files), packed
