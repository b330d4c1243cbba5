"""Compiles for a guest what its tests load: it takes seconds here and minutes there.

The guest sees this machine's files, and so the objects in the cache.
"""

from __future__ import annotations

import functools
from pathlib import Path

from probekit import config, plugins
from probekit.compile import compile_plan
from probekit.machine import kernel
from probekit.plugins import PROBES
from probekit.run import compose

from ..kernel.objects import OBJECTS


def _configuration(found: plugins.Plugins, probe: str) -> type:
    answer: type = found.call(PROBES, probe, "probekit_config", name=probe)
    return answer


def compile_for(btf: Path) -> None:
    """Compiles every object of the tests for a kernel's types."""
    found, facts = plugins.discover(), kernel.detect(btf)
    for probe, options in OBJECTS:
        kind = functools.partial(_configuration, found)
        settings = config.structure({"probe": {probe: options}}, (probe,), kind, kind, kind, "")
        for planned in compose.plan(settings, found, facts):
            compile_plan(planned.plan, facts)
