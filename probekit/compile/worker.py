"""The process that has LLVM in it: bcc compiles here, and is gone.

    python -I probekit/compile/worker.py < request.json > answer.json

It is run as a file, and imports nothing of probekit: every import here is part of a cold start. bcc makes the maps
while it compiles, so this needs the privileges that a run needs. clang's messages go to standard error. Exit status 1
stands for a refused source, 3 for no bcc.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

NO_BCC = 3
_RINGBUF = 27  # enum bpf_map_type; a ring buffer has neither keys nor values


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
            "formats": [describe(entry[1]) for entry in kind._fields_],
            "offsets": [getattr(kind, name).offset for name in names],
            "itemsize": ctypes.sizeof(kind),
        }
    if kind is ctypes.c_bool:
        return "?"
    if kind is ctypes.c_char:
        return "S1"
    signed = kind(-1).value < 0
    return f"={'i' if signed else 'u'}{ctypes.sizeof(kind)}"


def compile_source(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles one C source.

    Args:
        request: `source` (path), `cflags`, and `headers` (the tree).

    Returns:
        `maps` and `programs` of a `probekit.model.Object`, as JSON.
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

    source = Path(request["source"])
    text = f'#line 1 "{source}"\n' + source.read_text(encoding="utf-8")
    bpf = BPF(text=text, cflags=request["cflags"])
    module = bpf.module
    maps = []
    for i in range(lib.bpf_num_tables(module)):
        name = lib.bpf_table_name(module, i)
        spec = {field: function(module, i) for field, function in numbers.items()}
        for field, desc in (("key", lib.bpf_table_key_desc), ("value", lib.bpf_table_leaf_desc)):
            kind = BPF._decode_table_type(json.loads(desc(module, name)))
            if spec["type"] != _RINGBUF and ctypes.sizeof(kind) != spec[f"{field}_size"]:
                raise ValueError(
                    f"{name.decode()}: clang gives its {field} {spec[f'{field}_size']} bytes, bcc describes "
                    f"{ctypes.sizeof(kind)}; give the type explicit padding"
                )
            spec[field] = describe(kind)
        maps.append({"name": name.decode(), "placeholder": lib.bpf_table_fd(module, name), **spec})
    names = [lib.bpf_function_name(module, i) for i in range(lib.bpf_num_functions(module))]
    programs = {name.decode(): base64.b64encode(bpf.dump_func(name)).decode() for name in names}
    return {"maps": maps, "programs": programs}


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin)
    try:
        answer = compile_source(request)
    except Exception as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
