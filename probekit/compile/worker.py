"""The process that has LLVM in it: bcc compiles here, and is gone.

    python -I probekit/compile/worker.py < request.json > answer.json

It is run as a file, and imports nothing of probekit: every import here is part of a cold start. bcc makes the maps
while it compiles, so this needs the privileges that a run needs. clang's messages go to standard error, and so does the
source as bcc rewrote it, which `messages.py` reads. Exit status 1 stands for a refused source, 3
for no bcc.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

NO_BCC, REFUSED = 3, 1  # LLVM itself exits with 1 where a program is too large
# Where bcc is shown no kallsyms, it puts macros before the text that make bpf_probe_read of each of these; what it
# inserts itself, headers.py leads back to bpf_probe_read_kernel.
_AS_WRITTEN = "".join(f"#undef bpf_probe_read_{kind}\n" for kind in ("kernel", "kernel_str", "user", "user_str"))
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_KILL = 9
_SHOW_REWRITTEN = 0x4  # bcc's DEBUG_PREPROCESSOR
_SOCKET_FILTER = 1  # enum bpf_prog_type
_RINGBUF = 27  # enum bpf_map_type; a ring buffer has neither keys nor values
_KEYLESS = (22, 23, 30)  # queue, stack, bloom filter


def describe(kind: Any) -> Any:
    """A ctypes type as JSON that `numpy.dtype` takes, once lists of two are tuples again."""
    if issubclass(kind, ctypes.Array):
        if kind._type_ is ctypes.c_char:
            return f"S{kind._length_}"
        return [describe(kind._type_), [kind._length_]]
    if issubclass(kind, (ctypes.Structure, ctypes.Union)):
        names = [entry[0] for entry in kind._fields_]
        return {
            "names": names,
            "formats": [f"bits{entry[2]}" if len(entry) > 2 else describe(entry[1]) for entry in kind._fields_],
            "offsets": [getattr(kind, name).offset for name in names],
            "itemsize": ctypes.sizeof(kind),
        }
    if kind is ctypes.c_bool:
        return "?"
    if kind is ctypes.c_char:
        return "S1"
    if kind in (ctypes.c_float, ctypes.c_double):
        return f"=f{ctypes.sizeof(kind)}"
    signed = kind(-1).value < 0
    return f"={'i' if signed else 'u'}{ctypes.sizeof(kind)}"


def source_lines(lib: Any, module: Any, name: bytes, instructions: int) -> list[tuple[int, str, int]]:
    """Which line of which file each instruction comes from.

    bcc keeps the line table that clang made for BTF to itself and gives it to the kernel with each program that it
    loads. So it is let to load one as long as this one, of harmless instructions, and the kernel is asked. Offsets:
    struct bpf_prog_info, struct bpf_btf_info, struct btf_header and struct bpf_line_info of uapi/linux/bpf.h and btf.h.

    Returns:
        (instruction, file, line) where that changes, in order; nothing where the kernel does not tell.
    """
    harmless = b"\xb7".ljust(8, b"\0") * (instructions - 1) + b"\x95".ljust(8, b"\0")  # r0 = 0 ... exit
    program = lib.bcc_func_load(
        module, _SOCKET_FILTER, name, harmless, len(harmless), b"GPL", 0, 0, None, 0, None, 0, -1
    )  # fmt: skip
    if program < 0:
        return []
    try:
        info = _object_info(lib, program, b"", 256)
        (btf,), (count,), (size,) = (struct.unpack_from("=I", info, at) for at in (128, 148, 172))
        records = ctypes.create_string_buffer(count * size)
        wanted = struct.pack("=148xIQ12xI", count, ctypes.addressof(records), size)
        _object_info(lib, program, wanted, 256)
        blob = _types(lib, btf)
        if blob is None:
            return []
    finally:
        os.close(program)
    head, strings = struct.unpack_from("=4xI8xI", blob)
    names = blob.raw[head + strings :]
    found = []
    for at in range(0, count * size, size):
        instruction, file, _, position = struct.unpack_from("=IIII", records, at)
        if position >> 10:  # clang gives what it made itself line 0
            found.append((instruction, names[file : names.index(b"\0", file)].decode(), position >> 10))
    return found


def _types(lib: Any, number: int) -> Any:
    """The BTF of an id, through the descriptor that bcc has of it: asking for one takes CAP_SYS_ADMIN."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if "btf" not in str(entry.readlink()):
                continue
        except OSError:
            continue
        types = int(entry.name)
        length, found = struct.unpack_from("=8xII", _object_info(lib, types, b"", 64))
        if found == number:
            blob = ctypes.create_string_buffer(length)
            _object_info(lib, types, struct.pack("=QI", ctypes.addressof(blob), length), 64)
            return blob
    return None


def _object_info(lib: Any, fd: int, request: bytes, size: int) -> Any:
    info = ctypes.create_string_buffer(request, size)
    lib.bpf_obj_get_info(fd, info, ctypes.byref(ctypes.c_uint32(size)))
    return info


def compile_source(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles one C source.

    Args:
        request: `source` (path), `text` (what is compiled as that), `cflags`, and `headers` (the tree).

    Returns:
        `maps` and `programs` of a `probekit.model.Object`, as JSON, and `lines`: of each program what `source_lines`
        says.
    """
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    try:
        from bcc import BPF, lib  # LLVM: 94 MB
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_BCC)

    for name in ("bpf_table_name", "bpf_table_key_desc", "bpf_table_leaf_desc"):
        getattr(lib, name).restype = ctypes.c_char_p
    numbers = {name: getattr(lib, f"bpf_table_{name}_id") for name in ("type", "max_entries", "flags")}
    numbers |= {"key_size": lib.bpf_table_key_size_id, "value_size": lib.bpf_table_leaf_size_id}
    for function in (lib.bpf_table_name, *numbers.values()):
        function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for name in ("key_size", "value_size", "max_entries"):
        numbers[name].restype = ctypes.c_size_t

    text = _AS_WRITTEN + f'#line 1 "{request["source"]}"\n' + request["text"]
    bpf = BPF(text=text, cflags=request["cflags"], debug=_SHOW_REWRITTEN)
    module = bpf.module
    maps = []
    for i in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, i)
        spec = {field: function(module, i) for field, function in numbers.items()}
        for field, desc in (("key", lib.bpf_table_key_desc), ("value", lib.bpf_table_leaf_desc)):
            if field == "key" and spec["type"] in _KEYLESS:
                spec[field] = "=u4"
                continue
            kind = BPF._decode_table_type(json.loads(desc(module, name)))
            if spec["type"] != _RINGBUF and ctypes.sizeof(kind) != spec[f"{field}_size"]:
                raise ValueError(
                    f"{name.decode()}: clang gives its {field} {spec[f'{field}_size']} bytes, bcc describes "
                    f"{ctypes.sizeof(kind)}; give the type explicit padding"
                )
            spec[field] = describe(kind)
        maps.append({"name": name.decode(), "placeholder": lib.bpf_table_fd(module, name), **spec})
    names = [lib.bpf_function_name(module, i) for i in range(lib.bpf_num_functions(module))]
    code = {name: bpf.dump_func(name) for name in names}
    return {
        "maps": maps,
        "programs": {name.decode(): base64.b64encode(code[name]).decode() for name in names},
        "lines": {name.decode(): source_lines(lib, module, name, len(code[name]) // 8) for name in names},
    }


def main() -> None:
    """Answers one request."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, _KILL)
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # bcc prints to standard output, too
    try:
        answer = compile_source(request)
    except Exception as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        sys.exit(REFUSED)
    json.dump(answer, answers)
    answers.close()


if __name__ == "__main__":
    main()
