"""Compiles for a guest what its tests load: it takes seconds here and minutes there.

A guest that sees this machine's files sees the objects in the cache. One of another architecture has a bcc of its own
and runs this itself: `python -m tests.vm.objects`.
"""

from __future__ import annotations

import functools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from probekit import config, plugins
from probekit.compile import compile_plan
from probekit.machine import kernel
from probekit.plugins import PROBES
from probekit.run import compose

from ..kernel.objects import MODULES, OBJECTS


def _configuration(found: plugins.Plugins, probe: str) -> type:
    answer: type = found.call(PROBES, probe, "probekit_config", name=probe)
    return answer


def compile_for(btf: Path) -> None:
    """Compiles every object of the tests for a kernel's types, as many at a time as there are CPUs."""
    found, facts = plugins.discover(), kernel.detect(btf)
    plans = []
    for probe, options in OBJECTS:
        kind = functools.partial(_configuration, found)
        settings = config.structure({"probe": {probe: options}}, (probe,), kind, kind, kind, "")
        plans += [planned.plan for planned in compose.plan(settings, found, facts)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the compiler is a process
        for _ in pool.map(lambda plan: compile_plan(plan, facts), plans):
            pass


if __name__ == "__main__":
    for module in MODULES:
        subprocess.run(["modprobe", module], check=False, capture_output=True)
    compile_for(kernel.VMLINUX_BTF)
