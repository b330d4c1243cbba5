"""Facts about kernels that are not this one."""

from __future__ import annotations

import mmap
import platform
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from probekit import AttachPlan, config, plugins
from probekit.compile import headers, object_key
from probekit.machine import kernel
from probekit.machine.bpf.library import ENOTSUPP, call
from probekit.plugins import PROBES


@pytest.mark.parametrize(
    ("member", "machine"),
    [("orig_ax", "x86_64"), ("orig_x0", "aarch64"), ("orig_gpr2", "s390x"), ("other", platform.machine())],
)
def test_the_machine_of_types_is_theirs_and_not_this_one(tmp_path: Path, member: str, machine: str) -> None:
    (tmp_path / "btf").write_bytes(b"\0pt_regs\0" + member.encode() + b"\0")
    assert kernel.detect(tmp_path / "btf").machine == machine


def test_objects_of_two_architectures_have_two_keys(tmp_path: Path) -> None:
    (tmp_path / "it.bpf.c").write_text("")
    plan, facts = AttachPlan(tmp_path / "it.bpf.c", (), ()), kernel.detect()
    others = [attrs.evolve(facts, machine="other"), attrs.evolve(facts, page_size=1 << 16)]
    assert len({object_key(plan, each) for each in (facts, *others)}) == 3


def _plan(probe: str, facts: kernel.KernelFacts, **options: object) -> AttachPlan:
    found = plugins.discover()
    kind = found.call(PROBES, probe, "probekit_config", name=probe)
    settings = config.structure(
        {"probe": {probe: options}}, (probe,), lambda _: kind, lambda _: kind, lambda _: kind, ""
    )
    plan: AttachPlan = found.call(
        PROBES, probe, "probekit_attach", probe=probe, config=settings.probes[probe], kernel=facts
    )
    return plan


@pytest.mark.parametrize("page", [1 << 12, 1 << 14, 1 << 16])
@pytest.mark.parametrize(
    ("probe", "options", "pages"),
    [
        ("latency", {"mode": "events", "buffer": "4KiB"}, "EVENT_PAGES"),
        ("drops", {"mode": "events", "buffer": "16KiB"}, "EVENT_PAGES"),
        ("conntrack", {"buffer": "128KiB"}, "CLOSED_PAGES"),
    ],
)
def test_a_buffer_takes_whole_pages_of_the_kernels(page: int, probe: str, options: dict[str, str], pages: str) -> None:
    plan = _plan(probe, attrs.evolve(kernel.detect(), page_size=page), **options)
    assert plan.defines[pages] == max(1, int(options["buffer"].removesuffix("KiB")) * 1024 // page)
    for name in (name for name in plan.defines if name.endswith("_PAGES")):
        assert plan.defines[name] >= 1


def test_headers_say_how_large_a_page_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "find_bpftool", lambda: "bpftool")
    monkeypatch.setattr(headers, "_types", lambda *_: "")
    (tmp_path / "libbcc").touch()
    headers.make(tmp_path, tmp_path, "6.1.0", tmp_path / "libbcc", 1 << 16)
    assert "#define PAGE_SIZE 65536\n" in (tmp_path / "include/asm/page.h").read_text()
    assert kernel.detect().page_size == mmap.PAGESIZE


def _failing(number: int) -> Callable[[], int]:
    return lambda: -number


def test_what_no_c_library_has_words_for_is_said_in_words() -> None:
    with pytest.raises(OSError, match="not supported by this kernel on this architecture") as caught:
        call(_failing(ENOTSUPP))
    assert caught.value.errno == ENOTSUPP
    with pytest.raises(PermissionError, match="not permitted"):
        call(_failing(1))
