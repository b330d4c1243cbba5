"""Maps that are not what the plan takes them for: refused with the remedy before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from probekit import AttachPlan, Observation, Source
from probekit.attach import Tracepoint
from probekit.compile import agreement, compile_plan, load_object
from probekit.compile.cache import Cache
from probekit.drain import ArrayMap, Hash, PerCpuArray, PerCpuHash, Ring, Slots, Stacks
from probekit.errors import CompileError, LoadError
from probekit.load import Gate, Loaded
from probekit.machine import kernel
from probekit.machine.map_types import MapType
from probekit.model import LiveMap, MapSpec, Object

_DECLARED = {
    "hash": "BPF_HASH(it, u32, struct value, 8);",
    "lru_hash": 'BPF_TABLE("lru_hash", u32, struct value, it, 8);',
    "percpu_hash": "BPF_PERCPU_HASH(it, u32, struct value, 8);",
    "lru_percpu_hash": 'BPF_TABLE("lru_percpu_hash", u32, struct value, it, 8);',
    "array": "BPF_ARRAY(it, struct value, 8);",
    "mappable": 'BPF_F_TABLE("array", u32, struct value, it, 8, BPF_F_MMAPABLE);',
    "percpu_array": "BPF_PERCPU_ARRAY(it, struct value, 8);",
    "ring": "BPF_RINGBUF_OUTPUT(it, 1); LAYOUT(it, struct value);",
    "stack_trace": "BPF_STACK_TRACE(it, 64);",
    "queue": "BPF_QUEUE(it, struct value, 8);",
    "stack": "BPF_STACK(it, struct value, 8);",
    "trie": "struct prefix { u32 prefixlen; u32 data; };\nBPF_LPM_TRIE(it, struct prefix, struct value, 8);",
    "histogram": "BPF_HISTOGRAM(it);",
}
_ALLOWED = {
    Ring("it"): {"ring"},
    Slots("it", live="slot"): {"mappable"},
    ArrayMap("it"): {"array", "mappable"},
    PerCpuArray("it"): {"percpu_array"},
    Hash("it"): {"hash", "lru_hash"},
    PerCpuHash("it"): {"percpu_hash", "lru_percpu_hash"},
    Stacks("it"): {"stack_trace"},
}


def _kind(source: Source) -> str:
    return type(source).__name__


_NEVER = {
    "BPF_PERF_OUTPUT(it);": "a perf event array",
    "BPF_PERF_ARRAY(it, 8);": "a perf event array",
    "BPF_PROG_ARRAY(it, 8);": "prog_array",
    'BPF_HASH(in, u32, u64, 4);\nBPF_HASH_OF_MAPS(it, u32, "in", 8);': "a hash of maps",
    'BPF_HASH(in, u32, u64, 4);\nBPF_ARRAY_OF_MAPS(it, "in", 8);': "an array of maps",
    "BPF_CGROUP_ARRAY(it, 8);": "cgroup_array",
    "BPF_DEVMAP(it, 8);": "devmap",
    "BPF_SK_STORAGE(it, struct value);": "sk_storage",
}
_POINTS = (Tracepoint("sched_process_exit", "process_exit"),)


def _plan(folder: Path, declarations: str, *sources: Source, value: str = "u64 slot;", **more: Any) -> AttachPlan:
    source = folder / "it.bpf.c"
    program = "int process_exit(u64 *ctx) { return 0; }"
    source.write_text(f'#include "programs.h"\nstruct value {{ {value} }};\n{declarations}\n{program}\n')
    return AttachPlan(source=source, observations=(Observation("exit", _POINTS),), sources=sources, **more)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compiles declarations, each once, and looks whether a plan of such sources agrees."""
    folder = tmp_path_factory.mktemp("maps")
    cache = Cache(folder / "cache")
    facts = kernel.detect()

    def compile_it(declarations: str, *sources: Source, value: str = "u64 slot;", **more: Any) -> Object:
        plan = _plan(folder, declarations, *sources, value=value, **more)
        made = compile_plan(attrs.evolve(plan, sources=(), parameters={}), facts, cache)
        agreement.check(plan, made)
        return made

    return compile_it


@pytest.mark.parametrize("declared", _DECLARED)
@pytest.mark.parametrize("source", _ALLOWED, ids=_kind)
def test_a_source_is_a_map_of_its_kind_and_no_other(compiled: Any, source: Source, declared: str) -> None:
    if declared in _ALLOWED[source] or (declared, type(source)) == ("histogram", ArrayMap):
        assert "it" in {spec.name for spec in compiled(_DECLARED[declared], source).maps}
        return
    with pytest.raises(CompileError) as caught:
        compiled(_DECLARED[declared], source)
    assert "the map it " in caught.value.message
    assert f"a source {_kind(source)}" in caught.value.message
    assert "declare BPF_" in caught.value.hint
    if declared in _ALLOWED[source] or source.types == ArrayMap.types:  # an array, and only not mappable
        return
    others = [_kind(each) for each, allowed in _ALLOWED.items() if declared in allowed]
    calls = " or ".join(f'{other}("it")' for other in sorted(others))
    assert not others or f"drain it as {calls}" in caught.value.hint


@pytest.mark.parametrize("objects", [False, True], ids=["compiled", "loaded"])
def test_a_run_is_refused_before_anything_is_loaded(tmp_path: Path, objects: bool) -> None:
    facts, cache = kernel.detect(), Cache(tmp_path / "cache")
    plan = _plan(tmp_path, _DECLARED["percpu_hash"], Hash("it"))
    compile_plan(attrs.evolve(plan, sources=()), facts, cache)
    with pytest.raises(CompileError, match="the map it is a per-CPU hash; a source Hash has to be a hash or an"):
        _ = load_object(plan, facts, cache.folder) if objects else compile_plan(plan, facts, cache)


@pytest.mark.parametrize("declared", _NEVER)
def test_what_user_space_would_have_to_fill_is_refused_also_where_it_is_no_source(compiled: Any, declared: str) -> None:
    with pytest.raises(CompileError, match=rf"the map it is .*{_NEVER[declared]}.* user space would have to"):
        compiled(declared)


@pytest.mark.parametrize("declared", _DECLARED)
def test_what_programs_use_alone_is_made_as_it_is(compiled: Any, declared: str, tmp_path: Path) -> None:
    made = compiled(_DECLARED[declared])
    plan = _plan(tmp_path, _DECLARED[declared])
    with Gate() as gate, Loaded(made, plan, kernel.detect(), gate) as loaded:
        loaded.attach()
        assert "it" in loaded.maps


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("u32 slot : 3; u32 rest : 29;", "slot"),
        ("u64 slot; struct { u8 low : 1; u8 high : 7; } deep;", "deep.low"),
        ("u64 slot; struct { u32 a; u32 b : 5; } many[2];", "many.b"),
    ],
)
def test_bit_fields_of_a_value_are_refused(compiled: Any, value: str, field: str) -> None:
    with pytest.raises(CompileError, match=f"the value of it has a bit field, {field}, "):
        compiled(_DECLARED["hash"], Hash("it"), value=value)


@pytest.mark.parametrize("source", [source for source in _ALLOWED if not isinstance(source, Stacks)], ids=_kind)
def test_bit_fields_of_any_source_are_refused(compiled: Any, source: Source) -> None:
    declared = min(_ALLOWED[source])
    value, field = "u32 slot; u32 rest : 29;", "rest"
    with pytest.raises(CompileError, match=f"of it has a bit field, {field}, ") as caught:
        compiled(_DECLARED[declared], source, value=value)
    assert "declare a whole number" in caught.value.hint


def test_bit_fields_of_a_key_are_refused_and_those_of_a_map_that_nobody_drains_are_not(compiled: Any) -> None:
    declared = "struct of_it { u32 a : 4; u32 b : 28; };\nBPF_HASH(it, struct of_it, struct value, 8);"
    with pytest.raises(CompileError, match="the key of it has a bit field, a, "):
        compiled(declared, Hash("it"))
    assert compiled(declared).maps


@pytest.mark.parametrize(("words", "fits"), [(510, True), (511, True), (512, False), (1024, False)])
def test_a_record_has_to_fit_its_ring_buffer(compiled: Any, words: int, fits: bool) -> None:
    value = f"u64 slot; u64 more[{words - 1}];"
    if fits:
        assert compiled(_DECLARED["ring"], Ring("it"), value=value).maps
        return
    with pytest.raises(CompileError, match=rf"has 4096 bytes, and one record takes {words * 8 + 8}: none"):
        compiled(_DECLARED["ring"], Ring("it"), value=value)


@pytest.mark.parametrize("pages", [0, 3, 5, 6])
def test_pages_that_no_ring_buffer_can_have_are_told_with_the_line_and_the_rule(compiled: Any, pages: int) -> None:
    with pytest.raises(CompileError, match=r"it\.bpf\.c:3: the kernel refuses the map it: Invalid argument") as caught:
        compiled(f"BPF_RINGBUF_OUTPUT(it, {pages}); LAYOUT(it, struct value);")
    assert "power of two" in caught.value.hint


@pytest.mark.parametrize("flag", ["BPF_F_RDONLY", "BPF_F_WRONLY"])
def test_a_source_that_user_space_may_not_use_is_refused(compiled: Any, flag: str) -> None:
    declared = f'BPF_F_TABLE("hash", u32, struct value, it, 8, {flag});'
    with pytest.raises(CompileError, match="so that user space may not use it"):
        compiled(declared, Hash("it"))
    assert compiled(declared).maps


def test_a_table_needs_a_field_that_says_what_is_in_use(compiled: Any) -> None:
    for live in ("", "slto"):
        with pytest.raises(CompileError, match=rf"has no field '{live}'.*available: slot"):
            compiled(_DECLARED["mappable"], Slots("it", live=live))


@pytest.mark.parametrize(
    ("declared", "parameters", "message"),
    [
        ("", {"pid": 1}, "has no map parameters for the plan's parameters pid"),
        ("BPF_HASH(parameters, u32, struct given, 1);", {"pid": 1}, "parameters is a hash of 1 entries"),
        ("BPF_ARRAY(parameters, struct given, 2);", {"pid": 1}, "parameters is an array of 2 entries"),
        ("BPF_ARRAY(parameters, u64, 1);", {"pid": 1}, "has to be an array of one entry, a struct"),
        ("BPF_ARRAY(parameters, struct given, 1);", {"pid": 1, "port": 2}, "has no field port, which the plan gives"),
        ("BPF_ARRAY(parameters, struct two, 1);", {"pid": 1}, "has a field tid, which the plan does not give"),
        ("BPF_ARRAY(parameters, struct text, 1);", {"pid": 1}, "the field pid of parameters is no whole number"),
        ("BPF_ARRAY(parameters, struct bits, 1);", {"pid": 1}, "has a bit field, pid, "),
        ("BPF_ARRAY(parameters, struct given, 1);", {"pid": 1 << 32}, "pid = 4294967296 does not fit its field of 32"),
        ("BPF_ARRAY(parameters, struct given, 1);", {"pid": -1}, "pid = -1 does not fit its field of 32"),
    ],
)
def test_parameters_are_fields_of_an_array_of_one_entry(
    compiled: Any, declared: str, parameters: dict[str, int], message: str
) -> None:
    types = (
        "struct given { u32 pid; };\nstruct two { u32 pid; u32 tid; };\nstruct text { char pid[4]; };\n"
        "struct bits { u32 pid : 4; u32 rest : 28; };\n"
    )
    with pytest.raises(CompileError) as caught:
        compiled(types + declared, parameters=parameters)
    assert message in caught.value.message
    assert caught.value.hint


def test_parameters_of_any_width_and_sign_arrive(compiled: Any, tmp_path: Path) -> None:
    from probekit.machine import bpf

    types = "struct given { s64 below; u8 small; s16 middle; u32 large; };\nBPF_ARRAY(parameters, struct given, 1);"
    parameters = {"small": 255, "below": -5, "large": 1 << 31, "middle": -300}
    made = compiled(types, parameters=parameters)
    plan = AttachPlan(tmp_path / "it.bpf.c", (Observation("exit", _POINTS),), (), parameters=parameters)
    with Gate() as gate, Loaded(made, plan, kernel.detect(), gate) as loaded:
        raw = bpf.lookup(loaded.maps["parameters"].fd, bytes(4), 16)
    assert raw[:8] == (-5).to_bytes(8, "little", signed=True)
    assert (raw[8], int.from_bytes(raw[10:12], "little", signed=True)) == (255, -300)
    assert int.from_bytes(raw[12:16], "little") == 1 << 31


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("sched:sched_switch", 'Tracepoint("sched_switch", ...)'),
        ("sched/sched_switch", 'Tracepoint("sched_switch", ...)'),
        ("tracepoint:sched:sched_switch", 'Tracepoint("sched_switch", ...)'),
        ("sys_enter_openat", "attach to sys_enter, which is run for every system call: ctx[1] is the system call's"),
        ("syscalls:sys_exit_read", "attach to sys_exit, which is run for every system call: ctx[1] is what it returns"),
    ],
)
def test_names_of_tracefs_are_no_tracepoints(tmp_path: Path, target: str, says: str) -> None:
    points = (Tracepoint(target, "it"),)
    plan = AttachPlan(tmp_path / "nowhere.bpf.c", (Observation("it", points, needed=False),), ())
    with pytest.raises(CompileError) as caught:
        compile_plan(plan, kernel.detect())
    assert target in caught.value.message
    assert says in caught.value.hint


_SPEC = MapSpec("it", MapType.HASH, 4, 8, 8, 0, -1, "=u4", "=u8")


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        (Hash("it"), {"type": MapType.PERCPU_HASH}),
        (Hash("it"), {"type": MapType.LRU_PERCPU_HASH}),
        (Hash("it"), {"value_size": 16}),
        (Hash("it"), {"key_size": 8}),
        (PerCpuHash("it"), {"type": MapType.HASH}),
        (PerCpuHash("it"), {"type": MapType.PERCPU_HASH, "key_size": 8}),
        (PerCpuArray("it"), {"type": MapType.PERCPU_HASH}),
        (PerCpuArray("it"), {"type": MapType.PERCPU_ARRAY, "value_size": 64}),
        (ArrayMap("it"), {"type": MapType.PERCPU_ARRAY}),
        (ArrayMap("it"), {"type": MapType.ARRAY, "value_size": 64}),
        (Slots("it", live="slot"), {"type": MapType.ARRAY}),
        (Stacks("it"), {"type": MapType.ARRAY}),
    ],
)
def test_a_reader_has_no_buffer_for_what_the_map_is_not(source: Source, changes: dict[str, Any]) -> None:
    spec = attrs.evolve(_SPEC, **changes)
    with pytest.raises(LoadError):
        source.open(LiveMap(spec, -1, spec.value), 2)
