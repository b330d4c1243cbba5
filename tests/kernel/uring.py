"""io_uring by its own system calls: one operation at a time, no library."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from types import TracebackType

# Numbers of system calls from 424 on are the same on all architectures. The rest: include/uapi/linux/io_uring.h.
_SETUP, _ENTER = 425, 426
_GETEVENTS = 1
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000
_SQE = struct.Struct("=BBHiQQIIQ24x")
_CQE = struct.Struct("=QiI")
_PARAMS = struct.Struct("=2I32x10I10I")
ASYNC = 1 << 4
"""Flag: leave it to the kernel's worker threads."""
SEND, RECV = 26, 27

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Ring:
    """One io_uring; OSError where the kernel has none or refuses it."""

    def __enter__(self) -> Ring:
        """Makes it."""
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = _call(_SETUP, 4, params)
        sq_entries, cq_entries, *offsets = _PARAMS.unpack(params.raw)
        sq, cq = offsets[:10], offsets[10:]
        self._tail, self._array = sq[1], sq[6]
        self._sq_mask = sq[2]
        self._cq_head, self._cq_mask, self._cqes = cq[0], cq[2], cq[5]
        self._sq = mmap.mmap(self._fd, self._array + sq_entries * 4, offset=_SQ_RING)
        self._cq = mmap.mmap(self._fd, self._cqes + cq_entries * _CQE.size, offset=_CQ_RING)
        self._entries = mmap.mmap(self._fd, sq_entries * _SQE.size, offset=_SQES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        for memory in (self._sq, self._cq, self._entries):
            memory.close()
        os.close(self._fd)

    def do(self, operation: int, fd: int, buffer: ctypes.Array[ctypes.c_char], size: int, flags: int = 0) -> int:
        """Submits one operation and waits for it; its result."""
        (tail,) = struct.unpack_from("=I", self._sq, self._tail)
        (mask,) = struct.unpack_from("=I", self._sq, self._sq_mask)
        slot = tail & mask
        _SQE.pack_into(
            self._entries, slot * _SQE.size, operation, flags, 0, fd, 0, ctypes.addressof(buffer), size, 0, 0
        )
        struct.pack_into("=I", self._sq, self._array + slot * 4, slot)
        struct.pack_into("=I", self._sq, self._tail, (tail + 1) & 0xFFFFFFFF)
        _call(_ENTER, self._fd, 1, 1, _GETEVENTS, None, 0)
        (head,) = struct.unpack_from("=I", self._cq, self._cq_head)
        (mask,) = struct.unpack_from("=I", self._cq, self._cq_mask)
        _, result, _ = _CQE.unpack_from(self._cq, self._cqes + (head & mask) * _CQE.size)
        struct.pack_into("=I", self._cq, self._cq_head, (head + 1) & 0xFFFFFFFF)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)
