"""Runs the benchmarks: python -m tests.bench [drain kernel_path responses load startup flush drops] [--json FILE]."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

SECTIONS = ("startup", "drain", "kernel_path", "responses", "flush", "load", "drops", "plugins")


def main() -> None:
    """Prints every figure and writes them as JSON."""
    arguments = sys.argv[1:]
    path = Path(arguments.pop(arguments.index("--json") + 1) if "--json" in arguments else "build/bench.json")
    chosen = [name for name in SECTIONS if name in arguments] or SECTIONS
    results: dict[str, Any] = {}
    for name in chosen:
        results[name] = importlib.import_module(f"tests.bench.{name}").run()
        _show(name, results[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {path}")


def _show(name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _show(f"{name} / {key}".replace("_", " "), entry)
    elif not isinstance(value, list):
        print(f"{name:<60} {value}", flush=True)


if __name__ == "__main__":
    main()
