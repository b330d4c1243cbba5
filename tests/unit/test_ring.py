"""Reading a ring buffer, against a buffer in ordinary memory that is laid out as the kernel's."""

from __future__ import annotations

import mmap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit import LiveMap
from probekit.drain import Ring
from probekit.drain.ring import RingReader
from probekit.model import MapSpec

_LENGTH = 20
_LAYOUT = {"names": ["number", "rest"], "formats": ["=u8", "=u4"], "offsets": [0, 8], "itemsize": _LENGTH}
_STEP = 8 + 24
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class _Memory(bytearray):
    closed = False

    def close(self) -> None:
        self.closed = True


class _Ring:
    """The kernel's side: records are reserved one after the other, the data area is there twice."""

    def __init__(self, size: int = 4096, position: int = 0) -> None:
        self.size = size
        self.ours = _Memory(mmap.PAGESIZE)
        self.theirs = _Memory(mmap.PAGESIZE + 2 * size)
        self._set(self.ours, position)
        self._set(self.theirs, position)

        def map_memory(fd: int, length: int, flags: int, prot: int, *, offset: int = 0) -> _Memory:
            memory = self.theirs if offset == mmap.PAGESIZE else self.ours
            assert (fd, length) == (5, len(memory))
            assert bool(prot & mmap.PROT_WRITE) == (memory is self.ours)
            return memory

        spec = MapSpec("events", 27, 0, 0, size, 0, -1, "=u4", "=u4")
        live = LiveMap(spec, 5, _LAYOUT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mmap, "mmap", map_memory)
            self.reader = RingReader(Ring("events"), live, 1)

    @staticmethod
    def _set(memory: _Memory, position: int) -> None:
        memory[:8] = position.to_bytes(8, "little")

    @property
    def consumed(self) -> int:
        return int.from_bytes(self.ours[:8], "little")

    @property
    def produced(self) -> int:
        return int.from_bytes(self.theirs[:8], "little")

    def _write(self, position: int, data: bytes) -> None:
        for offset, byte in enumerate(data):
            at = mmap.PAGESIZE + (position + offset) % self.size
            self.theirs[at] = self.theirs[at + self.size] = byte

    def put(self, number: int = 0, length: int = _LENGTH, flags: int = 0) -> int:
        """Reserves a record; its position."""
        at = self.produced
        total = 8 + (length + 7) // 8 * 8
        assert at + total - self.consumed <= self.size, "the ring is full"
        body = (number.to_bytes(8, "little") + (number % 2**32).to_bytes(4, "little")).ljust(length, b"\xee")[:length]
        head = (length | flags).to_bytes(4, "little") + (at % 2**32 // 4096).to_bytes(4, "little")
        self._write(at, (head + body).ljust(total, b"\xdd"))
        self._set(self.theirs, at + total)
        return at

    def commit(self, at: int, flags: int = 0, length: int = _LENGTH) -> None:
        self._write(at, (length | flags).to_bytes(4, "little"))

    def read(self) -> list[int]:
        """Numbers of the records that a read hands out."""
        batch = self.reader.read()
        if batch is None:
            return []
        assert batch.source == "events"
        numbers: list[int] = batch.data["number"].tolist()
        assert batch.data["rest"].tolist() == [number % 2**32 for number in numbers]
        return numbers


def test_an_empty_buffer_has_no_batch() -> None:
    ring = _Ring()
    assert ring.reader.read() is None
    assert (ring.reader.delivered, ring.reader.foreign, ring.consumed) == (0, 0, 0)


def test_records_come_once_and_in_order() -> None:
    ring = _Ring()
    for number in (10, 11, 12):
        ring.put(number)
    assert ring.read() == [10, 11, 12]
    assert ring.read() == []
    ring.put(13)
    assert ring.read() == [13]
    assert (ring.reader.delivered, ring.reader.foreign) == (4, 0)


def test_what_was_read_is_given_back_to_the_kernel() -> None:
    ring = _Ring()
    ring.put()
    ring.put()
    ring.read()
    assert ring.consumed == ring.produced == 2 * _STEP


def test_a_batch_stays_as_it_was_when_the_kernel_writes_on() -> None:
    ring = _Ring(size=64)
    ring.put(1)
    batch = ring.reader.read()
    for number in (2, 3, 4):
        ring.put(number)
        ring.read()
    assert batch is not None
    assert batch.data["number"].tolist() == [1]


def test_a_record_that_is_being_written_holds_up_those_behind_it() -> None:
    ring = _Ring()
    ring.put(1)
    busy = ring.put(2, flags=_BUSY)
    ring.put(3)
    assert ring.read() == [1]
    assert ring.consumed == busy
    assert ring.read() == []
    ring.commit(busy)
    assert ring.read() == [2, 3]


def test_a_record_that_is_written_at_the_very_front_gives_no_batch() -> None:
    ring = _Ring()
    ring.put(1, flags=_BUSY)
    ring.put(2)
    assert ring.reader.read() is None
    assert ring.consumed == 0


def test_a_discarded_record_is_skipped_and_is_no_loss() -> None:
    ring = _Ring()
    ring.put(1)
    ring.put(2, flags=_DISCARDED)
    ring.put(3)
    ring.put(4, length=100, flags=_DISCARDED)
    ring.put(5)
    assert ring.read() == [1, 3, 5]
    assert (ring.reader.delivered, ring.reader.foreign) == (3, 0)
    assert ring.consumed == ring.produced


def test_a_record_discarded_after_it_was_waited_for_is_skipped() -> None:
    ring = _Ring()
    busy = ring.put(1, flags=_BUSY)
    ring.put(2)
    assert ring.read() == []
    ring.commit(busy, _DISCARDED)
    assert ring.read() == [2]


def test_only_discarded_records_give_no_batch_but_are_consumed() -> None:
    ring = _Ring()
    ring.put(flags=_DISCARDED)
    ring.put(flags=_DISCARDED)
    assert ring.reader.read() is None
    assert ring.consumed == ring.produced


@pytest.mark.parametrize("length", [0, 1, 8, 19, 21, 24, 25, 52, 1000])
def test_a_record_of_another_size_is_counted_and_left_out(length: int) -> None:
    ring = _Ring()
    ring.put(1)
    ring.put(2, length=length)
    ring.put(3)
    ring.put(4, length=length)
    assert ring.read() == [1, 3]
    assert (ring.reader.delivered, ring.reader.foreign) == (2, 2)
    assert ring.consumed == ring.produced


@pytest.mark.parametrize("flags", [0, _DISCARDED])
def test_a_record_may_be_longer_than_16_bits_say(flags: int) -> None:
    ring = _Ring(size=1 << 17)
    ring.put(1)
    ring.put(2, length=70_000, flags=flags)
    ring.put(3)
    assert ring.read() == [1, 3]
    assert ring.reader.foreign == (not flags)


def test_a_record_across_the_end_of_the_buffer_is_whole() -> None:
    ring = _Ring(size=128, position=128 - 16)
    numbers = [2**63 + 1, 2**63 + 2]
    for number in numbers:
        ring.put(number)
    assert ring.read() == numbers
    assert ring.consumed == 128 - 16 + 2 * _STEP


def test_a_full_buffer_is_read_whole_again_and_again() -> None:
    ring = _Ring(size=128)
    for turn in range(10):
        numbers = [turn * 4 + number for number in range(4)]
        for number in numbers:
            ring.put(number)
        assert ring.produced - ring.consumed == ring.size
        assert ring.read() == numbers


@pytest.mark.parametrize("position", [2**32 - _STEP, 2**32, 2**32 + 4096 * 3, 2**40 - 2 * _STEP, 2**63])
def test_positions_grow_beyond_32_bits(position: int) -> None:
    ring = _Ring(position=position)
    for number in range(5):
        ring.put(number)
    assert ring.read() == [0, 1, 2, 3, 4]
    assert ring.consumed == position + 5 * _STEP


def test_closing_lets_go_of_both_mappings() -> None:
    ring = _Ring()
    ring.put(1)
    ring.read()
    ring.reader.close()
    assert (ring.ours.closed, ring.theirs.closed) == (True, True)


_NORMAL, _READ = "normal", "read"
_actions = st.lists(
    st.just((_NORMAL, 20))
    | st.just((_NORMAL, 20))
    | st.tuples(st.just("discarded"), st.integers(0, 60))
    | st.tuples(st.just("foreign"), st.integers(0, 60).filter(lambda length: length != 20))
    | st.tuples(st.just("busy"), st.just(20))
    | st.just((_READ, 0)),
    max_size=80,
)


def _expected(records: list[tuple[str, int, int]]) -> tuple[list[int], int, int]:
    """Of records in the buffer: numbers handed out, foreign ones, and how many are taken."""
    numbers: list[int] = []
    foreign = 0
    for taken, (kind, number, _) in enumerate(records):
        if kind == "busy":
            return numbers, foreign, taken
        if kind == _NORMAL:
            numbers.append(number)
        foreign += kind == "foreign"
    return numbers, foreign, len(records)


@given(_actions, st.sampled_from([128, 512, 4096]), st.sampled_from([0, 1, 2**29 - 3, 2**40]))
@settings(derandomize=True, deadline=None)
def test_any_sequence_of_records_is_read_as_one_by_one(actions: Any, size: int, start: int) -> None:
    ring = _Ring(size, position=start * 8)
    waiting: list[tuple[str, int, int]] = []
    delivered = foreign = 0
    for number, (kind, length) in enumerate([*actions, (_READ, 0), (_READ, 0)]):
        if kind == _READ:
            numbers, others, taken = _expected(waiting)
            assert ring.read() == numbers
            delivered, foreign = delivered + len(numbers), foreign + others
            assert (ring.reader.delivered, ring.reader.foreign) == (delivered, foreign)
            assert ring.consumed == (waiting[taken][2] if taken < len(waiting) else ring.produced)
            waiting = waiting[taken:]
            if waiting:
                ring.commit(waiting[0][2])
                waiting[0] = (_NORMAL, *waiting[0][1:])
        elif ring.produced - ring.consumed + 8 + (length + 7) // 8 * 8 <= size:
            flags = {"discarded": _DISCARDED, "busy": _BUSY}.get(kind, 0)
            waiting.append((kind, number, ring.put(number, length, flags)))
