"""Thousands of objects and of compiler's answers that are damaged or nonsense: never more than a clear error.

Programs whose instructions were changed are not attached: the verifier would let some of them do real things.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probekit import AttachPlan, Observation
from probekit import compile as stage
from probekit.attach import Tracepoint
from probekit.compile import agreement, cache, compile_plan, contents, load_object, object_key
from probekit.compile.cache import Cache
from probekit.drain import Hash, PerCpuArray, Ring, Slots
from probekit.errors import ProbekitError
from probekit.load import Gate, Loaded
from probekit.machine import kernel
from probekit.machine.btf import Types
from probekit.model import Object

CASES = 2000
SEED = 20261125
PLAN = AttachPlan(
    source=Path(__file__).parent / "sources" / "every_kind.bpf.c",
    observations=(Observation("exit", (Tracepoint("sched_process_exit", "process_exit"),)),),
    sources=(
        Hash("by_command"),
        PerCpuArray("counts"),
        Slots("slots", live="used"),
        Ring("records"),
    ),
    parameters={"skip": 0},
)
_JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 8, 2**31, 2**32, 2**63, 10**30, 1.5, float("nan"), "", "x", "=u8", "S0",
    "S999999999",
        "=f8", "bits3", "bits", "|V8", "O", "\0", "\ud800", "AAAA", "....", [], [[]], ["=u8", [2**31]], ["=u8", [-1]],
    ["=u8", [0]], {}, {"names": []}, {"names": ["a"], "formats": ["=u8"], "offsets": [0], "itemsize": 8},
    {"names": ["a", "a"], "formats": ["=u8", "=u8"], "offsets": [0, 8], "itemsize": 16}, "slots", 27, 5, 6, 10,
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*at, key))


def with_nonsense(document: Any, chance: random.Random) -> Any:
    """A document of which one to three parts are something else."""
    changed = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        way = chance.choice(list(places(changed)) or [()])
        if not way:
            return chance.choice(_JUNK)
        holder = changed
        for key in way[:-1]:
            holder = holder[key]
        key, old = way[-1], holder[way[-1]]
        kind = chance.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[chance.choice(("", "x", "parameters", "counts"))] = holder.pop(key)
        elif kind == 2 and isinstance(old, str):
            holder[key] = of_bytes(old, chance)
        elif kind == 3 and type(old) is int:
            holder[key] = old + chance.choice((-1, 1, 4, 8, -old, 2**16))
        else:
            holder[key] = copy.deepcopy(chance.choice(_JUNK))
    return changed


def of_bytes(text: str, chance: random.Random) -> str:
    """Base64 of other bytes, or another text."""
    try:
        return base64.b64encode(damaged(base64.b64decode(text, validate=True), chance)).decode()
    except ValueError:
        return damaged(text.encode(), chance).decode(errors="replace")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes that were cut, changed, doubled, or had others put in."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 4, 8, 100))
        kind = chance.randrange(5)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at : at + length] = chance.randbytes(length)
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
    return bytes(data)


def many(what: str, one: Callable[[random.Random], str]) -> None:
    """Tries as many as are wanted; every outcome is a word, and nothing but a ProbekitError comes out."""
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    for number in range(CASES):
        try:
            outcomes[one(random.Random(f"{SEED} {what} {number}"))] += 1
        except ProbekitError as error:
            outcomes[type(error).__name__.strip("_") if error.message else "silent"] += 1
        except BaseException as error:
            pytest.fail(f"{what}, number {number}: {type(error).__name__}: {error}")
    print(f"{CASES} {what} in {time.monotonic() - began:.1f} s: {dict(outcomes)}")
    assert sum(outcomes.values()) == CASES
    assert not outcomes["silent"]


@pytest.fixture(scope="module")
def facts() -> kernel.KernelFacts:
    return kernel.detect()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, facts: kernel.KernelFacts) -> tuple[Cache, Object]:
    folder = Cache(tmp_path_factory.mktemp("fuzz") / "cache")
    return folder, compile_plan(PLAN, facts, folder)


def use(compiled: Object, original: Object, facts: kernel.KernelFacts) -> str:
    """Makes an object's maps, attaches what is its own, reads every source."""
    with Gate() as gate, Loaded(compiled, PLAN, facts, gate) as loaded:
        if compiled.programs == original.programs:
            loaded.attach()
            gate.open()
            subprocess.run(["true"], check=True)
        for source in PLAN.sources:
            reader = source.open(loaded.maps[source.name], facts.cpus)
            try:
                reader.read()
            finally:
                reader.close()
    return "loaded"


def test_damaged_objects_are_as_if_they_were_not_there(
    made: tuple[Cache, Object], facts: kernel.KernelFacts, tmp_path: Path
) -> None:
    _, original = made
    folder = Cache(tmp_path / "objects")
    folder.prepare()
    content = cache.encode(original)
    path = folder.folder / f"{original.key}.object"

    def one(chance: random.Random) -> str:
        path.write_bytes(damaged(content, chance))
        path.chmod(0o600)
        return "whole" if load_object(PLAN, facts, folder.folder) else "impossible"

    many("damaged objects", one)


def test_nonsense_that_was_sealed_again_is_refused_or_works(
    made: tuple[Cache, Object], facts: kernel.KernelFacts, tmp_path: Path
) -> None:
    _, original = made
    folder = Cache(tmp_path / "objects")
    folder.prepare()
    document = json.loads(json.dumps(contents.to_json(original)))
    path = folder.folder / f"{original.key}.object"

    def one(chance: random.Random) -> str:
        body = json.dumps(with_nonsense(document, chance)).encode()
        path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        path.chmod(0o600)
        return use(load_object(PLAN, facts, folder.folder), original, facts)

    many("objects sealed again", one)


def test_whatever_the_compilers_process_prints_is_an_object_or_a_clear_error(
    made: tuple[Cache, Object], facts: kernel.KernelFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, original = made
    answers: list[tuple[bytes, bytes]] = []
    really = subprocess.run

    def listening(*arguments: Any, **more: Any) -> Any:
        done = really(*arguments, **more)
        answers.append((done.stdout, done.stderr))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", listening)
        compile_plan(PLAN, facts, Cache(tmp_path / "other"))
    printed, said = answers[-1]
    document = json.loads(printed)
    types = Types(facts.btf_bytes())
    key = object_key(PLAN, facts)

    def one(chance: random.Random) -> str:
        kind = chance.randrange(4)
        output, messages, status = printed, said, chance.choice((0,) * 8 + (1, 3, 7, -9, -11, -40))
        if kind == 0:
            output = damaged(printed, chance)
        elif kind == 1:
            messages = damaged(said, chance)
        else:
            output = json.dumps(with_nonsense(document, chance)).encode()
        with monkeypatch.context() as patch:
            done = subprocess.CompletedProcess([], status, output, messages)
            patch.setattr(subprocess, "run", lambda *_, **__: done)
            compiled = stage._compile(PLAN, types, folder.folder, tmp_path / "types.h", key, "bcc")
        agreement.check(PLAN, compiled)
        return use(compiled, original, facts)

    many("compiler's answers", one)
