"""The tests of tests/kernel on other kernels: `pytest --kernels`.

In place of each selected test of tests/kernel there is one for each kernel, and none here. The guests run the same
tests with the same pytest, two guests at a time, and their reports are replayed here: they are in everything that
pytest makes of reports. With `--arm64` there is one guest, of that architecture.

A test that does not apply skips with "not on this kernel: ..." and the reason; skipped for any other cause is failed.
With `--within MINUTES`, for machines that are slow and have a limit, guests end then; what they have not run is skipped
with that reason, and stands in the table.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from probekit.errors import ProbekitError

from ..kernel.objects import MODULES
from . import arm64, initramfs, machine, objects, packages, vmlinux
from .table import NO_TIME, Outcome, lines

NOT_HERE = "not on this kernel: "
_FOLDER = "tests/kernel/"
_AT_A_TIME = 2
_WORTHWHILE = 120.0  # less is not enough to come to the tests
_outcomes = pytest.StashKey[list[Outcome]]()
_began = time.monotonic()
_reports = pytest.StashKey[Path | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("other kernels")
    group.addoption("--kernels", action="store_true", help="run tests/kernel on Debian's kernels, under QEMU")
    group.addoption("--arm64", action="store_true", help="run tests/kernel on Debian's kernel for ARM64, under QEMU")
    group.addoption("--within", type=float, default=math.inf, help="minutes of the whole run after which guests end")
    group.addoption("--reports", type=Path, help="write each test's reports to this file (used in the guest)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_outcomes] = []
    config.stash[_reports] = config.getoption("reports")


@frozen
class Guest:
    """A kernel's run of the tests.

    Attributes:
        kernel: Which one.
        machine: What it runs on.
        results: Its folder.
        tests: Node ids that it runs.
    """

    kernel: packages.Kernel
    machine: machine.Machine
    results: Path
    tests: list[str] = field(factory=list)

    def run(self, end: float) -> tuple[str, dict[str, list[dict[str, Any]]]]:
        """What went wrong with the guest, and the reports of each test.

        Args:
            end: When to stop, by the monotonic clock.
        """
        if end - time.monotonic() < _WORTHWHILE:
            return NO_TIME, {}
        try:
            self._prepare()
        except ProbekitError as error:
            return f"what the guest needs could not be made: {error.message}", {}
        return self._boot(end)

    def _prepare(self) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        initramfs.make(self.kernel, self.machine.root / "bin/busybox", self.results / "initramfs")
        if self.machine.compiles:
            return
        types = self.results / "btf"
        types.write_bytes(vmlinux.btf(self.kernel.image))
        for module in MODULES:  # beside the kernel's, as in /sys/kernel/btf
            if found := vmlinux.module_btf(self.kernel.modules, module):  # from 5.11 on
                types.with_name(module).write_bytes(found)
        objects.compile_for(types)

    def _boot(self, end: float) -> tuple[str, dict[str, list[dict[str, Any]]]]:
        limit = min(self.machine.limit, max(end - time.monotonic(), 1))
        initial = self.results / "initramfs"
        trouble = machine.run(self.kernel, self.machine, initial, self.tests, self.results, limit)
        if trouble and time.monotonic() >= end:
            trouble = NO_TIME
        reports: dict[str, list[dict[str, Any]]] = {}
        written = self.results / "reports"
        for line in written.read_text().splitlines() if written.exists() else ():
            report = json.loads(line)
            reports.setdefault(report["nodeid"], []).append(report)
        return trouble, reports


class Guests:
    """All of them, begun when the first result is wanted."""

    def __init__(self, booted: list[tuple[machine.Machine, packages.Kernel]], results: Path, end: float) -> None:
        self._end = end
        self.guests = [Guest(kernel, board, results / kernel.release) for board, kernel in booted]
        self._running: dict[str, Future[tuple[str, dict[str, list[dict[str, Any]]]]]] = {}

    def result(self, guest: Guest) -> tuple[str, dict[str, list[dict[str, Any]]]]:
        if not self._running:
            pool = ThreadPoolExecutor(_AT_A_TIME)
            self._running = {one.kernel.release: pool.submit(one.run, self._end) for one in self.guests}
            pool.shutdown(wait=False)
        return self._running[guest.kernel.release].result()


class GuestItem(pytest.Item):
    """A test in a guest."""

    def __init__(self, *, test: str, guest: Guest, guests: Guests, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.test = test
        self.guest = guest
        self.guests = guests
        self.add_marker(pytest.mark.timeout(0))  # the guest has its own

    def runtest(self) -> None:
        raise NotImplementedError

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name

    def reports(self) -> Iterator[pytest.TestReport]:
        """The guest's reports, or one that says why there are none."""
        trouble, reports = self.guests.result(self.guest)
        for data in reports.get(self.test, []):
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            report.nodeid = self.nodeid
            if isinstance(report.longrepr, list):  # JSON has no tuples
                report.longrepr = tuple(report.longrepr)
            yield report
        if any(report["when"] == "teardown" for report in reports.get(self.test, [])):
            return
        if trouble == NO_TIME:
            where = (str(self.path), 0, NO_TIME)
            yield pytest.TestReport(self.nodeid, self.location, {}, "skipped", where, "call")
        else:
            text = trouble or f"the guest has not run this test; what it printed: {self.guest.results / 'console'}"
            yield pytest.TestReport(self.nodeid, self.location, {}, "failed", text, "call")


def _elsewhere(config: pytest.Config) -> bool:
    return bool(config.getoption("kernels") or config.getoption("arm64"))


def _booted(config: pytest.Config) -> Iterator[tuple[machine.Machine, packages.Kernel]]:
    """What is asked for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "probekit-kernels"
    if config.getoption("arm64"):
        yield arm64.machine(cache)
    if config.getoption("kernels"):
        board = machine.x86(packages.qemu(cache, "x86"))
        for kernel in packages.kernels(cache):
            yield board, kernel


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tests = [item for item in items if item.nodeid.startswith(_FOLDER)]
    if not _elsewhere(config) or not tests:
        return
    end = _began + 60 * config.getoption("within")
    guests = Guests(list(_booted(config)), config.rootpath / "build/kernels", end)
    items[:] = [item for item in items if item not in tests]
    for guest in guests.guests:
        for item in tests:
            guest.tests.append(item.nodeid)
            twin = GuestItem.from_parent(
                item.session, name=item.name, nodeid=f"{item.nodeid} on {guest.kernel.release}",
                test=item.nodeid, guest=guest, guests=guests,
            )  # fmt: skip
            items.append(twin)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if not isinstance(item, GuestItem):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in item.reports():
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.nodeid.startswith(_FOLDER):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(NOT_HERE):
            report.outcome = "failed"
            report.longrepr = f"skipped without saying what this kernel lacks: {reason}"
        else:  # of the same place, so that pytest lists each reason once
            report.longrepr = (_FOLDER, 0, reason)
    return report


class _Recorder:
    """Keeps outcomes for the table, and reports for the machine outside."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path = self._config.stash[_reports]
        if path is not None:
            data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
            with path.open("a") as file:
                file.write(json.dumps(data) + "\n")
        if report.nodeid.startswith(_FOLDER) and (report.when == "call" or report.outcome != "passed"):
            test, _, kernel = report.nodeid.partition(" on ")
            reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
            notes = tuple(str(value) for name, value in report.user_properties if name == "note")
            reason = reason.removeprefix("Skipped: ")
            outcome = Outcome(test, kernel or platform.release(), report.outcome, reason, notes)
            self._config.stash[_outcomes].append(outcome)


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_Recorder(session.config))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    outcomes = config.stash[_outcomes]
    if outcomes and _elsewhere(config):
        terminalreporter.section("kernels")
        for line in lines(outcomes):
            terminalreporter.line(line)
