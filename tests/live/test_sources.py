"""Maps of every kind that can be drained hold what their programs put there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probekit import AttachPlan, Observation, Source
from probekit.attach import Tracepoint
from probekit.compile import compile_plan
from probekit.compile.cache import Cache
from probekit.decode import Symbols, fields, summed
from probekit.drain import ArrayMap, Hash, PerCpuHash, Stacks
from probekit.load import Gate, Loaded
from probekit.machine import kernel
from probekit.model import Batch, LiveMap

SOURCE = """
#include "programs.h"
struct name { char text[16]; };
struct count { u32 exits; u8 nine; };
BPF_ARRAY(array, struct count, 3);
BPF_TABLE("percpu_hash", struct name, struct count, percpu, 64);
BPF_TABLE("lru_percpu_hash", u32, struct count, lru, 64);
BPF_HASH(ids, int, u64, 64);
BPF_STACK_TRACE(stacks, 64);

static __always_inline void counted(struct count *count) {
  if (count) {
    __sync_fetch_and_add(&count->exits, 1);
    count->nine = 9;
  }
}

int process_exit(u64 *ctx) {
  struct name name = {};
  struct count none = {};
  u64 zero = 0, *seen;
  int second = 1, id;
  u32 key = 7;

  bpf_get_current_comm(&name, sizeof(name));
  if (name.text[0] != 'p' || name.text[1] != 'k' || name.text[2] != '-')
    return 0;
  counted(array.lookup(&second));
  counted(percpu.lookup_or_try_init(&name, &none));
  counted(lru.lookup_or_try_init(&key, &none));
  id = stacks.get_stackid(ctx, 0);
  seen = ids.lookup_or_try_init(&id, &zero);
  if (seen)
    __sync_fetch_and_add(seen, 1);
  return 0;
}
"""
SOURCES: tuple[Source, ...] = (
    ArrayMap("array"), PerCpuHash("percpu"), PerCpuHash("lru"), Hash("ids"), Stacks("stacks"),
)  # fmt: skip
EXITS = 7


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Batch]]:
    """What is drained after processes `pk-a` and `pk-b` have ended."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "it.bpf.c").write_text(SOURCE)
    facts = kernel.detect()
    points = (Tracepoint("sched_process_exit", "process_exit"),)
    plan = AttachPlan(folder / "it.bpf.c", (Observation("exit", points),), SOURCES)
    with ExitStack() as stack:
        gate = stack.enter_context(Gate())
        loaded = stack.enter_context(Loaded(compile_plan(plan, facts, Cache(folder / "cache")), plan, facts, gate))
        loaded.attach()
        gate.open()
        for name in ("pk-a", "pk-b"):
            (folder / name).symlink_to("/bin/sleep")
            for _ in range(EXITS):
                subprocess.run([folder / name, "0"], check=True)
        gate.close()
        yield {source.name: _read(source, loaded.maps[source.name], facts.cpus) for source in plan.sources}


def _read(source: Source, live: LiveMap, cpus: int) -> Batch:
    reader = source.open(live, cpus)
    batch = reader.read()
    reader.close()
    assert batch is not None
    assert batch.data.dtype == source.zeros(live, cpus, 0).dtype
    assert batch.data.shape[1:] == source.zeros(live, cpus, 0).shape[1:]
    return batch


def test_an_array_has_all_entries(batches: dict[str, Batch]) -> None:
    values = fields(batches["array"]).values
    assert values["exits"].tolist() == [0, 2 * EXITS, 0]
    assert values["nine"].tolist() == [0, 9, 0]


def test_a_per_cpu_hash_has_the_values_of_all_cpus(batches: dict[str, Batch]) -> None:
    data = batches["percpu"].data
    assert data["value"].shape == (2, kernel.detect().cpus)
    values = summed(batches["percpu"]).values
    assert dict(zip(values["text"].tolist(), values["exits"].tolist(), strict=True)) == {b"pk-a": EXITS, b"pk-b": EXITS}
    assert (data["value"]["nine"].sum(axis=1) == 9 * (data["value"]["exits"] > 0).sum(axis=1)).all()


def test_a_per_cpu_lru_hash_too(batches: dict[str, Batch]) -> None:
    values = summed(batches["lru"]).values
    assert (values["key"].tolist(), values["exits"].tolist()) == ([7], [2 * EXITS])


def test_stack_traces_are_those_of_their_ids(batches: dict[str, Batch]) -> None:
    ids, traces = batches["ids"].data, batches["stacks"].data
    assert int(ids["value"].sum()) == 2 * EXITS
    assert set(ids["key"].tolist()) == set(traces["key"].tolist())
    symbols = Symbols()
    for trace in traces["value"]["ip"]:
        assert "do_exit" in _functions(symbols, trace)


def _functions(symbols: Symbols, trace: Any) -> list[str]:
    return [symbols.function(int(address))[0] for address in trace[np.flatnonzero(trace)]]


def test_a_map_that_hands_out_no_batches_is_read_once_while_it_changes(tmp_path: Path) -> None:
    from probekit.machine import bpf
    from probekit.machine.map_types import MapType

    table = bpf.create_map(MapType.HASH, "it", 4, 8, 64, 0)
    for number in range(40):
        bpf.update(table, number.to_bytes(4, "little"), bytes(8))
    seen = []
    for raw in bpf.items_singly(table, 4, 8):
        seen.append(raw[:4])
        kernel.libbcc_bpf().bpf_delete_elem(table, raw[:4])  # type: ignore[union-attr]
    assert len(seen) == len(set(seen)) <= 40
