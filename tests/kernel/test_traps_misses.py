"""Traps of the ways themselves: an event that comes while a program runs already is dropped; it has to be counted.

The programs of the probe call nothing that leads to them again. So one that does is put among them, or, for kprobes,
one of them where it is met while another one runs.
"""

from __future__ import annotations

import os
import signal
import struct
from contextlib import ExitStack

import pytest

from probekit.attach import Fentry, Tracepoint
from probekit.machine import bpf, kernel
from probekit.machine.btf import Types, target_ids

from .conftest import LiveProbe, Pair

HASH = 1  # enum bpf_map_type


def assembled(*instructions: tuple[int, int, int, int]) -> bytes:
    """Opcode, registers (destination in the lower half), offset, immediate: include/uapi/linux/bpf.h."""
    return b"".join(struct.pack("=BBhi", *instruction) for instruction in instructions)


END = ((0xB7, 0x00, 0, 0), (0x95, 0x00, 0, 0))  # return 0


def prints() -> bytes:
    """Calls bpf_trace_printk, in which the tracepoint of that name is."""
    return assembled(
        (0x7A, 0x0A, -8, ord("x")), (0xBF, 0xA1, 0, 0), (0x07, 0x01, 0, -8), (0xB7, 0x02, 0, 2), (0x85, 0, 0, 6), *END
    )  # fmt: skip


def deletes(fd: int) -> bytes:
    """Calls bpf_map_delete_elem, which is htab_map_delete_elem for a hash."""
    return assembled(
        (0x7A, 0x0A, -8, 0), (0xBF, 0xA2, 0, 0), (0x07, 0x02, 0, -8), (0x18, 0x11, 0, fd), (0, 0, 0, 0),
        (0x85, 0, 0, 3), *END,
    )  # fmt: skip


def attached(stack: ExitStack, point: Fentry | Tracepoint, code: bytes) -> int:
    """The descriptor of a program that is attached."""
    named = point.btf
    number = target_ids(Types(kernel.detect().btf_bytes()), [(named.kind, named.name)])[named.key]
    program, _ = bpf.load_program((point.program_type, point.attach_type), "recursive", code, number)
    stack.callback(os.close, program)
    for link in point.link(program):
        stack.callback(os.close, link)
    return program


def test_programs_missed(alone: LiveProbe, way: str) -> None:
    if not kernel.detect().has_name("recursion_misses"):
        pytest.skip("not on this kernel: bpf_prog_info has no recursion_misses")
    assert alone.result()["lost"]["programs_missed"] == 0
    with ExitStack() as stack:
        if way == "kprobe":
            arrival = alone.program("arrival")
            stack.callback(os.close, bpf.attach_kprobe(arrival, "bpf_get_current_comm"))
            ends = Pair(alone)
            stack.callback(ends.close)
            ends.exchange()  # each end's owner is new: both ask for its name
            assert ends.events() == (1, 1)
            expected = 2
        elif way == "fentry":
            table = bpf.create_map(HASH, "table", 8, 8, 1, 0)
            stack.callback(os.close, table)
            alone.programs.append(attached(stack, Fentry("htab_map_delete_elem", ""), deletes(table)))
            expected = delete_some(table)
        else:
            alone.programs.append(attached(stack, Tracepoint("bpf_trace_printk", ""), prints()))
            expected = print_some()
        missed = alone.result()["lost"]["programs_missed"]
        if way == "kprobe" and not missed:
            pytest.skip("not on this kernel: it does not count what kprobes miss")
        assert missed >= expected  # others may print, too


def delete_some(table: int) -> int:
    """Deletes from a hash three times."""
    library = kernel.libbcc_bpf()
    assert library is not None
    for _ in range(3):
        library.bpf_delete_elem(table, struct.pack("=Q", 1))
    return 3


def print_some() -> int:
    """Has a program on signals print three times."""
    with ExitStack() as stack:
        attached(stack, Tracepoint("signal_generate", ""), prints())
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGWINCH)
    return 3
