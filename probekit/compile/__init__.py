"""C and the kernel's types to an object, through bcc in a process of its own. Stage 3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..btf import Types, named_ids, target_ids
from ..errors import CompileError, MissingError
from ..kernel import WITH_BCC, WITH_BTF, KernelFacts, libbcc_bpf
from ..model import LAYOUT, AttachPlan, MapSpec, Object, SourceKind, Way
from . import headers, layouts, messages, prune, sources, worker
from .cache import Cache, default_folder

_FORMAT = "4"  # changes whenever an object of an older probekit cannot be loaded any more


def compile_plan(plan: AttachPlan, kernel: KernelFacts, cache: Cache | None = None) -> Object:
    """The object of a plan, from the cache where it is there.

    Args:
        plan: What to compile.
        kernel: The kernel to compile for.
        cache: Where objects are kept.

    Raises:
        MissingError: bcc, bpftool or the kernel's BTF is missing.
        CompileError: bcc refuses the source.
    """
    btf = kernel.btf
    if btf is None:
        raise MissingError("this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)", WITH_BTF)
    cache = cache or Cache(default_folder())
    cache.prepare()
    libbcc = find_libbcc()
    version = f"{libbcc.resolve().name}, {libbcc.stat().st_size} bytes"
    key = object_key(plan, kernel)
    compiled = cache.load(key, version)
    if compiled is not None:
        _check(plan, compiled)  # which sources a plan drains is no part of the key
        return sources.located(compiled, plan)
    tree = cache.tree(
        _digest(kernel.btf_digest(), kernel.release, version, Path(headers.__file__).read_bytes()),
        lambda out: headers.make(out, btf, kernel.release, libbcc),
    )
    types = Types(kernel.btf_bytes())
    with tempfile.TemporaryDirectory(prefix="probekit-") as folder:
        header = Path(folder, "types.h")
        header.write_text(_needed_types(tree, plan, libbcc, types))
        try:
            compiled = _compile(plan, types, tree, header, key, version)
        except CompileError:
            header.write_text(_all_types(tree, plan, types))
            compiled = _compile(plan, types, tree, header, key, version)
    _check(plan, compiled)
    with contextlib.suppress(MissingError):  # the next start compiles again; this one need not fail
        cache.store(compiled)
    return sources.located(compiled, plan)


def _check(plan: AttachPlan, compiled: Object) -> None:
    """Refuses a plan that names what its C source has not."""
    missing = [program for program in plan.programs() if program not in compiled.programs]
    if missing:
        raise CompileError(f"{plan.source} has no function {', '.join(missing)}, which the plan attaches")
    maps = {spec.name for spec in compiled.maps}
    for source in plan.sources:
        if source.map not in maps:
            there = ", ".join(sorted(name for name in maps if not name.endswith(LAYOUT))) or "none"
            raise CompileError(f"{plan.source} has no map {source.map}, which the plan drains (there is: {there})")
        if source.kind is SourceKind.RING and source.map + LAYOUT not in maps:
            raise CompileError(
                f"{plan.source} does not say what the records of the ring buffer {source.map} are",
                f"add LAYOUT({source.map}, struct ...) of programs.h after it",
            )


def load_object(plan: AttachPlan, kernel: KernelFacts, folder: Path) -> Object:
    """The object of a plan from a folder that `probekit compile` wrote, on a machine that may have no compiler.

    Raises:
        MissingError: There is none for this plan and this kernel, or it may have been changed by others.
    """
    compiled = Cache(folder).load(object_key(plan, kernel))
    if compiled is None:
        raise MissingError(
            f"{folder} has no object for this kernel, configuration and version of {plan.source.name}",
            "make one with `probekit compile ... --config FILE --btf BTF --output DIR`; the folder and its files have "
            "to belong to the user who runs, and to be writable by nobody else",
        )
    return sources.located(compiled, plan)


def object_key(plan: AttachPlan, kernel: KernelFacts) -> str:
    """A digest of all that an object depends on but the version of bcc."""
    return _digest(
        _FORMAT, sys.byteorder, kernel.machine, kernel.btf_digest(), sorted(plan.defines.items()), plan.programs(),
        sorted(_targets(plan).items()), *(path.read_bytes() for path in sources.files(plan)),
    )  # fmt: skip


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


def _targets(plan: AttachPlan) -> dict[str, list[str]]:
    points = [point for observation in plan.observations for point in observation.points]
    return {
        "functions": sorted({point.target for point in points if point.way in (Way.FENTRY, Way.FEXIT)}),
        "tracepoints": sorted({point.target for point in points if point.way is Way.TRACEPOINT}),
        "iterators": sorted({point.target for point in points if point.way is Way.ITERATOR}),
    }


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
    request = {
        "source": str(plan.source),
        "cflags": [
            f'-DPROBEKIT_TYPES="{header}"',
            "-fms-extensions",  # kernels from 7 on embed a named struct without naming the member
            *(f"-I{path}" for path in sources.folders(plan)),
            *(f"-D{name}={value}" for name, value in plan.defines.items()),
            *(f"-D{name}={number}" for name, number in named_ids(types, _words(plan)).items()),
        ],
        "headers": str(tree),
    }
    process = subprocess.run(
        [sys.executable, "-I", worker.__file__], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    if process.returncode == worker.NO_BCC:
        raise MissingError(
            f"Python's bcc is missing: {process.stderr.strip()}",
            "install your distribution's python3-bpfcc, and make the virtual environment with "
            "--system-site-packages; the package named bcc on PyPI is something else",
        )
    if process.returncode:
        raise CompileError(*messages.explain(process.stderr, plan.source, sources.files(plan)))
    answer = json.loads(process.stdout)
    return Object(
        key=key,
        compiler=compiler,
        maps=tuple(MapSpec(**spec) for spec in answer["maps"]),
        programs={name: base64.b64decode(code) for name, code in answer["programs"].items()},
        targets=target_ids(types, **_targets(plan)),
        **_lines(answer["lines"], plan, process.stderr),
    )


def _lines(lines: dict[str, list[tuple[int, str, int]]], plan: AttachPlan, said: str) -> dict[str, Any]:
    """The fields `files` and `lines` of an object, of what the worker says about the source that bcc rewrote."""
    source = plan.source
    written = messages.origins(source.read_text(encoding="utf-8"), messages.split(said, source)[1])
    files: dict[str, int] = {}
    packed = {}
    for name, entries in lines.items():
        records = b""
        for instruction, file, line in entries:
            if file == str(source) and line <= len(written):
                line = written[line - 1]
            place = files.setdefault(sources.portable(plan, file), len(files))
            records += struct.pack("=III", instruction, place, line)
        packed[name] = records
    return {"files": tuple(files), "lines": packed}
