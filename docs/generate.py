"""Writes the parts of the documentation that come from the code; `check` as argument only compares."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import probekit
from probekit import plugins
from probekit.config import reference
from probekit.plugins import EXPORTERS, HOOKS, NEEDED, PROBES, WORDS, hookspecs
from probekit.plugins.distribution import NAME

DOCS = Path(__file__).parent
HEAD = """\
# Configuration

Made by `./dev docs` from the configuration classes. `probekit config init latency` prints the same as a TOML file, and
`probekit config validate FILE` checks one. `--set probe.latency.sample=0.1` overrides one option, and
`--export KIND[:PATH]` adds an exporter to the chain.

The value of `--set` is TOML, but a text needs no quotes: `--set probe.drops.mode=events`. In lists it does:
`--set 'probe.drops.layers=["tc"]'`. Paths are written as in messages: `--set export[0].path=out.json`.

Nothing is coerced and no unknown key is passed over: a file that has one is refused, with the path, the value and what
is allowed. Exporters run in the order of the file, and each gets every snapshot: one at each interval, one at the end.
No two may write to one file; on standard output (`"-"`) their texts come one after the other.

What exporters write is for its owner's eyes: new files have mode 0600. `json` and `csv` replace a file as a whole or
leave it as it was; `jsonl` adds lines, and a file never ends within one. A pipe, a terminal or standard output whose
reader takes nothing for 5 s is not waited for: that is an error, and the next snapshot is tried again. Standard output
and other descriptors (`/dev/stdout`, `/dev/fd/3`) get the last snapshot only, but of `jsonl` all.

Another user's file or pipe is not written to, and no link is followed that another user made or that is in another
user's folder; root's links are. A new file in another user's folder is made. `force = true` in an exporter's table
lifts this for its files; `--export` has no way to say it.

Names that processes, cgroups or people chose may hold anything. In `json` and `jsonl` what is not printable is written
as `\\u001b` and reads back the same; elsewhere it is shown as `\\x1b`. A text in `csv` that begins with `=`, `+`, `-`
or `@` has a `'` before it, for the sake of spreadsheets; numbers have not.

`[[aggregate]]` adds an aggregator of another package to a probe: `kind` names it, `probe` the probe, and further
options are its own. Its figures come out with the probe's, with its name and a dot before each.

"""
HOOKS_HEAD = """\
# Hooks and the public interface

Made by `./dev docs` from `probekit/plugins/hookspecs.py` and `probekit/__init__.py`. [Write a probe](write-a-probe.md)
goes through a whole package.

## Plugins

A plugin is a module that an entry point of a Python package names; the entry point's name is the plugin's. The entry
point's group says what it is and which hooks it implements, each a function marked with `@probekit.hook`:

"""
HOOKS_RULES = """\

A plugin is imported when its name is first used: in a configuration file, or as an argument. A hook is called once,
while a run is put together, and never for an event or a batch; what it returns is called directly. The core calls a
hook of one plugin only, so that a plugin need not ask whether it is meant. An implementation may leave out arguments
that it does not need.

What does not keep to this is refused with one message that names the plugin, its package and the version: a module that
cannot be imported, an unknown or missing hook, an unknown argument, a result of another kind, a name that two packages
have. What a plugin raises while it measures is told in the same way, at once. It costs what the plugin was at, a batch
or a snapshot, which `lost` counts: the plugin is called again with the next one, and the run ends with exit code 4 or
2.

## Hooks

"""
API_HEAD = """\
## The public interface

Public are the names that `probekit` exports and, of the modules among them, the names that those export; and of the C
headers in `bpf/include` what their comments describe. They change incompatibly only with the major version, before 1.0
with the minor one, and the [changelog](../CHANGELOG.md) says so. A hook may get further arguments in any version: an
implementation names those that it takes. Everything else may change at any time.

"""


def pages() -> dict[str, str]:
    """The generated pages by file name, for the plugins that come with probekit."""
    found = plugins.discover()
    kinds = {
        group: {
            info.name: found.config_type(group, info.name)
            for info in found.describe()
            if info.group == group and info.distribution == NAME
        }
        for group in (PROBES, EXPORTERS)
    }
    return {
        "configuration.md": HEAD + reference.markdown(kinds[PROBES], kinds[EXPORTERS]),
        "hooks.md": _hooks(),
    }


def _hooks() -> str:
    groups = ["| group | what it is | hooks |", "| --- | --- | --- |"]
    groups += [
        f"| `{group}` | {WORDS[group]} | {', '.join(f'`{hook}`' for hook in hooks)} |"
        for group, hooks in NEEDED.items()
    ]
    sections = [_hook(getattr(hookspecs, name)) for name in HOOKS]
    parts = [HOOKS_HEAD + "\n".join(groups), HOOKS_RULES + "\n".join(sections), API_HEAD + "\n".join(_interface())]
    return "\n".join(parts) + "\n"


def _hook(function: Any) -> str:
    """A hook from its specification: what it is for, each argument with its type, what it returns."""
    signature = inspect.signature(function)
    parts = re.split(r"\n(Args|Returns):\n", inspect.getdoc(function) or "")
    described = dict(zip(parts[1::2], parts[2::2], strict=True))
    helps = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", described["Args"], re.MULTILINE))
    assert set(helps) == set(signature.parameters), f"{function.__name__} documents other arguments than it has"
    rows = [
        f"| `{name}` | `{parameter.annotation}` | {' '.join(helps[name].split())} |"
        for name, parameter in signature.parameters.items()
    ]
    returns = " ".join(described["Returns"].split())
    return "\n".join(
        [f"### `{function.__name__}`", "", parts[0].strip(), "", "| argument | type | what it is |",
         "| --- | --- | --- |",
         *rows, "", f"Returns `{signature.return_annotation}`: {returns}", ""]
    )  # fmt: skip


def _interface() -> list[str]:
    """A table of the names that are public, and one for each public module."""
    lines = ["### `probekit`", "", "| name | what it is |", "| --- | --- |"]
    modules = []
    for name in probekit.__all__:
        if isinstance(getattr(probekit, name, None), types.ModuleType) or not hasattr(probekit, name):
            modules.append(importlib.import_module(f"probekit.{name}"))
        else:
            lines.append(f"| `{name}` | {_first_line(getattr(probekit, name), name)} |")
    for module in modules:
        lines += ["", f"### `{module.__name__}`", "", "| name | what it is |", "| --- | --- |"]
        lines += [f"| `{name}` | {_first_line(getattr(module, name), name)} |" for name in module.__all__]
    return lines


def _first_line(value: Any, name: str) -> str:
    """What a class or function says of itself; values have their words here."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return (inspect.getdoc(value) or "").splitlines()[0]
    return VALUES[name]


VALUES = {
    "Array": "a NumPy array",
    "Bytes": "a size in bytes, in TOML `4MiB`",
    "Decoder": "a function from `Batch` to `Columns`",
    "Harnesses": "the type of the fixture `probe_harness`",
    "PATH_RULE": "what `check_template` allows, in words",
    "Seconds": "a duration in seconds, in TOML `60s`",
    "hook": "marks a function of a plugin as the implementation of the hook of its name",
    "probe_harness": "the fixture: a function from a probe's name and options to a `Harness`",
}


def main() -> int:
    """Writes or compares; 1 where a page is not what the code says."""
    made = pages()
    stale = [name for name, text in made.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != text]
    if "check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is not what the code says: run ./dev docs", file=sys.stderr)
        return int(bool(stale))
    for name, text in made.items():
        (DOCS / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
