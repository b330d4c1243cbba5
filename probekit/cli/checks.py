"""`probekit check`: what this machine and this kernel offer, found by really loading and attaching."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from attrs import frozen

from ..compile import compile_plan, find_libbcc
from ..errors import InputError, MissingError, ProbekitError
from ..load import Gate, Loaded
from ..machine import bpf, install
from ..machine.kernel import PRIVILEGES, WITH_BTF, KernelFacts, find_bpftool
from ..machine.privileges import WITHOUT, missing
from ..model import AttachPoint, Planned
from ..plugins import PROBES, Plugins, distribution


@frozen
class Fact:
    """A line of the report.

    Attributes:
        name: What was looked at.
        good: It is there; None where it is told only.
        text: What was found.
        remedy: What to do where it is missing.
    """

    name: str
    good: bool | None
    text: str
    remedy: str = ""


def machine(kernel: KernelFacts) -> Iterator[Fact]:
    """Facts that all probes need."""
    yield Fact("kernel", None, f"{kernel.release} on {kernel.machine}, {kernel.cpus} CPUs possible")
    yield Fact(
        "privileges", kernel.privileged, ", ".join(sorted(kernel.capabilities)) or f"none, as user {os.geteuid()}",
        PRIVILEGES,
    )  # fmt: skip
    for name in missing(WITHOUT, kernel.capabilities) if kernel.privileged else ():
        yield Fact(f"  without {name}", None, WITHOUT[name])
    yield Fact(
        "BTF", kernel.btf is not None, str(kernel.btf) if kernel.btf else "missing",
        WITH_BTF,
    )  # fmt: skip
    yield Fact("kprobes", None, "yes" if kernel.kprobes else "no: this kernel was built without them")
    try:
        yield Fact("bcc library", True, str(find_libbcc()))
    except MissingError:
        yield Fact("bcc library", False, "missing", install.command())
    module = importlib.util.find_spec("bcc")
    real = module is not None and importlib.util.find_spec("bcc.libbcc") is not None
    if module is not None and not real:
        yield Fact("bcc for Python", False, f"{module.origin} is not the BPF Compiler Collection", "pip uninstall bcc")
    else:
        yield Fact(
            "bcc for Python", real, str(module.origin) if module else "missing",
            f"{install.command()}; a virtual environment has to be made with --system-site-packages",
        )  # fmt: skip
    other = distribution.stranger()
    if other:
        yield Fact(distribution.STRANGER, False, other, distribution.REMEDY)
    bpftool = find_bpftool()
    yield Fact("bpftool", bpftool is not None, bpftool or "missing", install.command())


def probe(planned: Planned, kernel: KernelFacts) -> Iterator[Fact]:
    """Tries every way of one probe, not only the best ones."""
    try:
        compiled = compile_plan(planned.plan, kernel)
        with Gate() as gate, Loaded(compiled, planned.plan, kernel, gate) as loaded:
            locked = sum(bpf.locked_bytes(live.fd) for live in loaded.maps.values())
            yield Fact("maps", None, f"{len(loaded.maps)}, {locked / 1e6:.2f} MB locked")
            for observation in planned.plan.observations:
                tried = [(point, loaded.try_point(point)) for point in observation.points]
                loaded.detach()
                works = any(refusal is None for _, refusal in tried)
                lacking = "the probe cannot run" if observation.needed else f"without: {observation.without}"
                yield Fact(observation.name, works or None if not observation.needed else works, "", lacking)
                for point, refusal in tried:
                    yield Fact(f"  {_named(point)}", None, refusal.reason if refusal else "works")
                    needs = missing(point.elsewhere, kernel.capabilities) if refusal is None else ()
                    if needs:
                        told = f"not permitted: needs {' and '.join(needs)}"
                        yield Fact("  in other network namespaces", None, told)
    except ProbekitError as error:
        yield Fact("compile and load", False, error.message, error.hint)


def plugins(found: Plugins) -> Iterator[Fact]:
    """Whether aggregators and exporters can be imported and keep the contract."""
    for info in found.describe():
        if info.group == PROBES:
            continue
        try:
            found.config_type(info.group, info.name)
        except InputError as error:
            yield fault(error)
        else:
            yield Fact(str(info), True, "")


def fault(error: ProbekitError) -> Fact:
    """An error as a line of the report."""
    return Fact(error.message, False, "", error.hint)


def _named(point: AttachPoint) -> str:
    return f"{point.way} {point.target}"
