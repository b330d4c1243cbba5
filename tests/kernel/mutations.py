"""Takes the protections out of a copy of the tree, one after the other, and sees that their tests fail.

mutations.toml has them. `./dev mutations [WAY [NAME ...]]` tries those of these names, or all, with one way of
attaching.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomli
from attrs import frozen

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutations.toml")


@frozen
class Mutation:
    """A protection that is taken out.

    Attributes:
        tests: Tests that have to fail without it.
        edits: File, text that is there once, and what takes its place.
        needs: Where it makes a difference, if not everywhere.
    """

    tests: tuple[str, ...]
    edits: tuple[tuple[str, str, str], ...]
    needs: str


def read() -> dict[str, Mutation]:
    """The mutations by name."""
    return {
        entry["name"]: Mutation(
            tuple(entry["tests"]),
            tuple((edit["file"], edit["old"], edit["new"]) for edit in entry["edits"]),
            entry.get("needs", ""),
        )
        for entry in tomli.loads(TABLE.read_text())["mutation"]
    }


def mutate(tree: Path, mutation: Mutation) -> None:
    """Changes the files of a tree."""
    for file, old, new in mutation.edits:
        text = (tree / file).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{file} has {text.count(old)} times, not once:\n{old}")
        (tree / file).write_text(text.replace(old, new))


def verdicts(mutation: Mutation, way: str, cache: Path) -> dict[str, str]:
    """What became of each test: `failed` is what is wanted."""
    with tempfile.TemporaryDirectory(prefix="probekit-mutation-") as folder:
        copy = Path(folder, "tree")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        mutate(copy, mutation)
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
        wanted = " or ".join(f"{test}[" for test in mutation.tests)
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", "tests/kernel"]
        command += ["-k", f"({wanted}) and {way}"]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) .*?::(\w+)\[", done.stdout, re.MULTILINE)
    return {test: _worst({verdict for verdict, name in found if name == test}) for test in mutation.tests}


def _worst(verdicts: set[str]) -> str:
    return next((v.lower() for v in ("FAILED", "ERROR", "SKIPPED", "PASSED") if v in verdicts), "not run")


def main(way: str = "tracepoint", *names: str) -> int:
    """Tries the mutations of these names, or all."""
    mutations, survived = read(), 0
    with tempfile.TemporaryDirectory(prefix="probekit-mutation-cache-") as cache:
        for name in names or mutations:
            for test, verdict in verdicts(mutations[name], way, Path(cache)).items():
                good = verdict == "failed" or bool(mutations[name].needs)
                needs = f" (needs {mutations[name].needs})" if mutations[name].needs else ""
                print(f"{'  ' if good else '! '}{name:<52} {test:<68} {verdict}{needs}", flush=True)
                survived += not good
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
