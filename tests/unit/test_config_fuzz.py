"""Mutants of every probe's written configuration: whatever they are, they are valid or told what is wrong with them.

They go through `config validate`, and through `run` up to where the kernel begins: where it asks for privileges that it
does not get, and then, where they have settings, through the plan that every probe makes of its own.

PROBEKIT_MUTANTS=20000 makes as many; each has a number, by which PROBEKIT_MUTANT=1234 runs one alone.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
from attrs import frozen

from probekit import cli, plugins
from probekit.config import overrides, read, reference
from probekit.errors import InputError
from probekit.machine import kernel
from probekit.plugins import EXPORTERS, PROBES
from probekit.run import compose

COUNT = int(os.environ.get("PROBEKIT_MUTANTS", "1200"))
NUMBERS = [int(os.environ["PROBEKIT_MUTANT"])] if "PROBEKIT_MUTANT" in os.environ else range(COUNT)
BATCH = 100
FOUND = plugins.discover()
ORIGINALS = [
    reference.toml(
        {name: FOUND.config_type(PROBES, name) for name in probes},
        {name: FOUND.config_type(EXPORTERS, name) for name in FOUND.names(EXPORTERS)},
    )
    for probes in ([name] for name in FOUND.names(PROBES))
] + [reference.toml({name: FOUND.config_type(PROBES, name) for name in FOUND.names(PROBES)}, {})]

VALUES = [
    "0", "-1", "1", "1e400", "-0.0", "inf", "-inf", "nan", "true", "false", '""', "''", "[]", "{}", "[[]]", "[{}]",
    "2020-01-01", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5+01:00", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "9" * 5000, "0x" + "f" * 3600, "0o7", "0b1", "1_000", "4096",
    '"60s"', '"4MiB"', '"-"', '"{probe}"', '"{probe"', '"{0}"', '"{probe.x}"', '"{probe!r:>99}"', '"\\u0000"',
    '"\\u001b[31m"', '"\\U0010ffff"', '"\\u202e"', '"/"', '"/dev/full"', '"."', '"a/b/c"', '"' + "x" * 5000 + '"',
    '"' + "9" * 5000 + 's"', '"1e9s"', '"1d1d1d"', "[1, 2]", '["a", "a"]', '["tcp"]', '["xdp", "tc"]', '["\\u0000"]',
    '["' + "y" * 300 + '"]', "{kind = 1}", "{a = {b = {c = 1}}}", "[" * 60 + "]" * 60, '"auto"', '"events"', '"json"',
    '"/proc/self/ns/net"', '"/proc/1/ns/../../.."', '"""a\nb"""', "'''c\n'''", '"latency"', "[true, 1, 1.5, 'x']",
    "[2020-01-01]", "1.0", "0.5", "65536", '"1GiB"', '"lo"', '["lo"]', '["lo", "nope"]', "-9223372036854775808",
]  # fmt: skip
KEYS = [
    "run", "probe", "export", "aggregate", "kind", "path", "table", "probe.latency", '""', '"a.b"', "'\\x'", "é", "a-b",
    "duration", "interval", "0", '"\\u0000"', '"\\u001b"', "x" * 3000, "probe.drops.x.y", "sample", "mode",
]  # fmt: skip
LINES = [
    "[run]", "[probe]", "[export]", "[[export]]", "[[run]]", "[[probe]]", "[probe.latency]", "[probe.drops]",
    "[[aggregate]]", "[[probe.latency]]", "[probe.nobody]", "[[export.kind]]", "[a.b.c.d]", "run = 1", "export = 1",
    "probe = 1", "# x", "\t", "aggregate = {}", "kind = 'json'", "kind = 5", "probe = 'latency'", "path = 'x'", "[",
    "]", "=", "x", "x =", "[[]]", "[]", 'export = [{kind = "json"}, {kind = "csv"}]', "run.duration = '1s'",
    "probe.latency.sample = 0.5", "[run.duration]",
]  # fmt: skip
CHARACTERS = [
    "\0", "\x7f", "\x1b", "\r", "\ufeff", "\u2028", "\u202e", "é", "\U0001f600", '"', "'", "\\", "#", "=", ".", "[",
    "]", "{", "}", ",", "\n", " ", "\t", "_", "-", "+", "e", "0", "\u0663", "\u0301",
]  # fmt: skip


def _line(mutate: Callable[[random.Random, str], str]) -> Callable[[random.Random, str], str]:
    def change(dice: random.Random, text: str) -> str:
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        lines[at] = mutate(dice, lines[at])
        return "\n".join(lines)

    return change


def _option(dice: random.Random, text: str, change: Callable[[str, str], str]) -> str:
    """One `name = value` of the text, of those that are commented out too, changed."""
    options = list(re.finditer(r"^(?:# )?(\w+) = (.*)$", text, re.MULTILINE))
    if not options:
        return text
    option = dice.choice(options)
    return text[: option.start()] + change(option[1], option[2]) + text[option.end() :]


def _swap(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def _piece(dice: random.Random, text: str) -> str:
    begin = dice.randrange(len(text) + 1)
    return text[begin : begin + dice.randrange(200)]


def _insert(dice: random.Random, text: str, piece: str) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + piece + text[at + dice.choice((0, 0, len(piece))) :]


MUTATIONS: list[Callable[[random.Random, str], str]] = [
    lambda dice, text: _option(dice, text, lambda name, _: f"{name} = {dice.choice(VALUES)}"),
    lambda dice, text: _option(dice, text, lambda name, _: f"{name} = {dice.choice(VALUES)}"),
    lambda dice, text: _option(dice, text, lambda _, value: f"{dice.choice(KEYS)} = {value}"),
    lambda dice, text: _option(dice, text, lambda name, value: f"[{name}]\n{name} = {value}"),
    lambda dice, text: _option(dice, text, lambda name, value: f"{name}.{name} = {value}"),
    lambda dice, text: _option(dice, text, lambda name, value: f"{name} = [{value}, {value}]"),
    lambda dice, text: _option(dice, text, lambda name, value: f"{name} = {{{name} = {value}}}"),
    lambda dice, text: _option(dice, text, lambda name, value: f"{name} = {value}\n{name} = {value}"),
    lambda dice, text: _option(dice, text, lambda _, __: ""),
    _line(lambda dice, line: dice.choice(LINES)),
    _line(lambda dice, line: line + "\n" + dice.choice(LINES)),
    _line(lambda dice, line: line + "\n" + line),
    _line(lambda dice, line: ""),
    _line(lambda dice, line: line.removeprefix("# ")),
    _line(lambda dice, line: line.replace("[", "[[").replace("]", "]]") if dice.random() < 0.5 else line.strip("[]")),
    _swap,
    lambda dice, text: _insert(dice, text, dice.choice(CHARACTERS)),
    lambda dice, text: _insert(dice, text, _piece(dice, text)),
    lambda dice, text: _insert(dice, text, dice.choice(VALUES)),
    lambda dice, text: text[: dice.randrange(len(text) + 1)],
]


def written(value: Any) -> str:
    """A value as TOML, all of it on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)} = {written(entry)}' for name, entry in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(written(entry) for entry in value)}]"
    if isinstance(value, (str, bool)):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return value.text if isinstance(value, Raw) else str(value)


@frozen
class Raw:
    """TOML that is written as it is."""

    text: str


def _tree(dice: random.Random, text: str) -> str:
    """A text whose tables, options and values are changed, and which is TOML all the same."""
    tables = tomli.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE) if dice.random() < 0.5 else text)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        holders = list(_holders(tables))
        holder, key = dice.choice(holders)
        other, place = dice.choice(holders)
        value = holder[key]
        match dice.randrange(10):
            case 0:
                del holder[key]
            case 1:
                holder[key] = [value]
            case 2:
                holder[key] = {dice.choice(("a b", "kind", "run", "path")): value}
            case 3:
                holder[key] = copy.deepcopy(other[place])
            case 4 if isinstance(holder, dict):
                holder[dice.choice(("", "kind", "path", "table", "probe", "export", "x" * 999, "\x1b"))] = value
            case 5 if isinstance(holder, list):
                holder.append(copy.deepcopy(value))
            case 6 if isinstance(value, (str, int, float)):
                holder[key] = dice.choice((str(value) + "x", [value, value], Raw(f"{value!s}.5"), str(value).upper()))
            case _:
                holder[key] = Raw(dice.choice(VALUES))
        if not tables:
            break
    return "\n".join(f"{json.dumps(name)} = {written(entry)}" for name, entry in tables.items())


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every table and list with each of its keys."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(entry, (dict, list)):
            yield from _holders(entry)


def mutant(number: int) -> bytes:
    """The configuration of that number."""
    dice = random.Random(number)
    text = dice.choice(ORIGINALS)
    if dice.random() < 0.6:
        return _tree(dice, text).encode("utf-8", "surrogatepass")
    if dice.random() < 0.7:  # without comments there is more to hit
        text = re.sub(r"^# .*\n", "", text, flags=re.MULTILINE)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        text = dice.choice(MUTATIONS)(dice, text)
    made = text.encode("utf-8", "surrogatepass")
    if dice.random() < 0.1 and made:  # bytes that are no characters
        raw = bytearray(made)
        for _ in range(dice.choice((1, 1, 5))):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        made = bytes(raw)
    return made


ARGUMENTS = [
    "probe.latency.sample", "probe.drops.mode", "probe.conntrack.netns", "run", "run.duration", "export", "probe",
    "export[0].path", "export[0]", "probe.drops.layers", 'probe."x"', "aggregate", "aggregate[0].kind", "",
]  # fmt: skip


def _bare(dice: random.Random, values: list[str]) -> str:
    return dice.choice(values).strip(dice.choice(("", '"')))


def arguments(number: int) -> list[str]:
    """Of `run`, beside the configuration."""
    dice = random.Random(-number - 1)
    made = [name for name in FOUND.names(PROBES) if dice.random() < 0.5] or [dice.choice(["latency", "drops"])]
    if dice.random() < 0.2:
        made += [dice.choice(["--duration", "--interval"]), _bare(dice, VALUES)]
    if dice.random() < 0.2:
        made += ["--set", f"{dice.choice(ARGUMENTS + KEYS)}={_bare(dice, VALUES + KEYS)}"]
    if dice.random() < 0.2:
        made += [
            "--export",
            dice.choice(["json", "csv:x", "json:{probe}", "nope", "csv:", ":", "jsonl:\udcff", "stdout:x"]),
        ]
    return made


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The kernel begins where it is not to be had: after everything that a user wrote has been looked at."""
    facts = kernel.detect()

    def detect(btf: Path | None = None) -> kernel.KernelFacts:
        return kernel.KernelFacts(facts.release, facts.machine, facts.cpus, facts.btf, frozenset())

    monkeypatch.setattr(kernel, "detect", detect)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.toml"


def planned(file: Path, given: list[str]) -> None:
    """What `run` does next with what it was given: each probe says what it wants of the kernel."""
    probes = tuple(given[: next((at for at, word in enumerate(given) if word.startswith("--")), len(given))])
    values: dict[str, list[str]] = {}
    for option, value in zip(given[len(probes) :: 2], given[len(probes) + 1 :: 2], strict=True):
        values.setdefault(option, []).append(value)
    run: dict[str, Any] = {name: values.get(f"--{name}", [None])[-1] for name in ("duration", "interval")}
    document = overrides(read(file), run, values.get("--export", ()), values.get("--set", ()))
    compose.plan(cli._structure(document, probes, FOUND), FOUND, kernel.detect())


def faults(number: int, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a mutant is taken; empty where nothing is."""
    file.write_bytes(mutant(number))
    given = arguments(number)
    for command, codes in (
        (["config", "validate", str(file)], (0, 2)),
        (["run", *given, "--config", str(file)], (2, 3)),
    ):
        code = cli.invoke(command)
        said = capsys.readouterr()
        if code not in codes:
            return f"{command} ended with {code}: {said.err[:2000]}"
        if "Traceback" in said.err or "internal error" in said.err or "-packages/" in said.err:
            return f"{command} said {said.err[:2000]}"
        if code and not said.err.startswith("error: "):
            return f"{command} said nothing: {said}"
        if not all(line.isprintable() for line in said.err.splitlines()):
            return f"{command} said what is not to be printed: {said.err!r:.2000}"
        if max(map(len, said.err.splitlines()), default=0) > 3000:
            return f"{command} said too much in one line"
        if python := re.search(r"datetime\.|\bTrue\b|\bNone\b|set_int_max|object at 0x|<class", said.err):
            return f"{command} speaks Python, {python[0]}: {said.err[:2000]}"
    if code == 3:  # but for privileges it would have run
        try:
            planned(file, given)
        except InputError:
            return ""
        except Exception as error:
            return f"the plan failed: {type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("first", range(0, len(NUMBERS), BATCH))
def test_a_mutant_is_valid_or_told_what_is_wrong(
    first: int, unprivileged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in NUMBERS[first : first + BATCH]:
        fault = faults(number, unprivileged, capsys)
        assert not fault, f"mutant {number}: {fault}"


def test_mutants_are_of_every_kind(unprivileged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {number: mutant(number) for number in range(1000)}
    assert len(set(made.values())) > 900
    codes = []
    for number in range(100):
        unprivileged.write_bytes(made[number])
        codes.append(cli.invoke(["config", "validate", str(unprivileged)]))
        codes.append(cli.invoke(["run", *arguments(number), "--config", str(unprivileged)]))
    said = capsys.readouterr().err
    assert all(codes.count(code) > 5 for code in (0, 2, 3))
    assert all(
        word in said for word in ("not valid TOML", "has to be ", "unknown key", "too large", "--set ", "is not")
    )
