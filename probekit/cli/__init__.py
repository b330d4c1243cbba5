"""The command line, and the only place where errors are shown."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from .. import config, plugins
from ..errors import ExportError, InputError, MissingError, ProbekitError
from ..machine import kernel, streams, trust
from ..model import Snapshot
from ..plugins import AGGREGATORS, EXPORTERS, PROBES, WORDS, Plugins
from ..run.stop import Stop
from ..words import lines, printable


def main() -> None:
    """Runs the command line and exits: 0 well, 2 the input, 3 the kernel or the machine, 4 an exporter."""
    streams.prepare()
    code = invoke(sys.argv[1:])
    if any(thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
        os._exit(code)  # an exporter that was given up may hold what an orderly exit waits for
    fault = streams.settle()
    sys.exit(_unwritten(fault) if fault is not None and code == 0 else code)


def invoke(arguments: list[str]) -> int:
    """Runs a command; every error becomes a message on standard error and an exit code."""
    try:
        result = commands.main(arguments, prog_name="probekit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        _complain("interrupted")
        return 130
    except click.ClickException as error:
        _misused(error)
        return error.exit_code
    except ProbekitError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _complain(error.message, error.hint)
        return error.exit_code
    except SystemExit:  # click's own way out where nobody reads standard output
        fault = streams.fault()
        if fault is None:
            raise
        streams.quieten()
        return _unwritten(fault)
    except streams.OutputError as error:
        streams.quieten()
        return _unwritten(error)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        if isinstance(error, RuntimeError) and str(error) == "can't start new thread":  # Python has no class for it
            _complain("no thread can be started here", "look at `ulimit -u` and `-v`, and at the cgroup's pids.max")
            return MissingError.exit_code
        _complain(
            f"internal error: {type(error).__name__}: {error}", "probekit --debug ... shows where; please report it"
        )
        return 1


class Failures:
    """What failed while the rest of a run went on: said at once, and once, though it may fail at each interval."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def add(self, error: ProbekitError) -> None:
        """Says it; any thread may call."""
        with self._lock:
            self.exit_code = min(self.exit_code or error.exit_code, error.exit_code)
            if error.message in self._said:
                return
            self._said.add(error.message)
        _complain(error.message, error.hint)


def _say(words: str) -> None:
    click.echo(words, err=True)


def _unwritten(fault: OSError) -> int:
    """Standard output cannot be written. Where it is a pipe that nobody reads any more, nobody wants to know."""
    if fault.errno != errno.EPIPE:
        _complain("standard output is closed" if fault.errno == errno.EBADF else f"standard output: {fault.strerror}")
    return ExportError.exit_code


def _misused(error: click.ClickException) -> None:
    """Says what is wrong with the arguments; who gave none is told which there are."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # its message is the help
        click.echo(error.format_message(), err=True)
        return
    context = getattr(error, "ctx", None)
    _complain(error.format_message(), f"`{context.command_path} --help` lists what is available" if context else "")


def _complain(message: str, hint: str = "") -> None:
    colour = None if streams.coloured(sys.stderr) else False
    for word, shade, text in (("error", "red", message), ("hint", "cyan", hint)):
        if text:
            click.secho(f"{word}: ", fg=shade, bold=True, nl=False, err=True, color=colour)
            click.echo(lines(text), err=True)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from .. import __version__  # not above: another package's files may lie over ours, and `check` is to say so

        click.echo(f"probekit, version {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback with each error.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
def commands(debug: bool) -> None:
    """Measure what happens in the Linux kernel, as a TOML file says."""
    trust.refuse_foreign_packages()
    if not streams.coloured(sys.stdout) or not streams.coloured(sys.stderr):
        click.get_current_context().color = False


@commands.command()
@click.argument("probes", nargs=-1, required=True, metavar="PROBE...")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="TOML file.  [default: every option at its default, tables on stdout]",
)
@click.option("--duration", help="How long to measure, such as 60s.  [default: until Ctrl-C]")
@click.option("--interval", help="Time between two snapshots, such as 10s.")
@click.option(
    "--export", "exports", multiple=True, metavar="KIND[:PATH]", help="Add an exporter to the chain; repeatable."
)
@click.option(
    "--objects",
    type=click.Path(path_type=Path, file_okay=False),
    help="Load objects that `probekit compile` wrote to this folder.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override an option, such as probe.latency.sample=0.1; repeatable.",
)
def run(
    probes: tuple[str, ...],
    file: Path | None,
    duration: str | None,
    interval: str | None,
    exports: tuple[str, ...],
    objects: Path | None,
    settings: tuple[str, ...],
) -> int:
    """Measure until the duration ends or Ctrl-C or SIGTERM arrives."""
    found = plugins.discover()
    document = config.overrides(_read(file), {"duration": duration, "interval": interval}, exports, settings)
    chosen = _structure(document, tuple(dict.fromkeys(probes)), found)
    facts = _privileged()

    from ..run import compose

    stop = Stop()
    terminal = sys.stderr.isatty()
    if terminal:
        click.secho(f"preparing {', '.join(probes)} ...", dim=True, err=True)
    failures = Failures()
    told = compose.Told(
        begun=_announce(stop, chosen), progress=_progress if terminal else _no_progress, failed=failures.add, said=_say
    )
    compose.run(chosen, found, facts, stop, told, objects)
    return failures.exit_code


@commands.command(name="compile")
@click.argument("probes", nargs=-1, required=True, metavar="PROBE...")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file that the probes will run with.")
@click.option(
    "--btf", type=click.Path(path_type=Path, exists=True), help="BTF of the kernel to compile for.  [default: this one]"
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder to write to, for `probekit run --objects`."
)
def compile_objects(probes: tuple[str, ...], file: Path | None, btf: Path | None, output: Path) -> None:
    """Compile probes for a machine without a compiler."""
    from ..compile import compile_plan
    from ..compile.cache import Cache
    from ..run import compose

    found = plugins.discover()
    facts = _privileged(btf)
    settings = _structure(_read(file), tuple(dict.fromkeys(probes)), found)
    folder = Cache(output)
    folder.prepare()
    for planned in compose.plan(settings, found, facts):
        compiled = compile_plan(planned.plan, facts)
        folder.store(compiled)
        click.echo(f"{output / compiled.key}.object: {planned.name}, {len(compiled.programs)} programs")


@commands.command()
@click.argument("probes", nargs=-1, metavar="[PROBE...]")
def check(probes: tuple[str, ...]) -> int:
    """Load and attach every program, and show what works here."""
    from ..run import compose
    from . import checks

    found = plugins.discover()
    facts = kernel.detect()
    good = _report("machine", checks.machine(facts))
    if not facts.privileged or facts.btf is None:
        return 3
    for name in probes or found.names(PROBES):
        try:
            planned = compose.plan(_structure(config.Document({}), (name,), found), found, facts)[0]
        except InputError as error:  # one plugin is at fault; the others are looked at all the same
            if probes:
                raise
            good &= _report(name, [checks.fault(error)])
        else:
            good &= _report(name, checks.probe(planned, facts))
    if not probes:
        good &= _report("other plugins", checks.plugins(found))
    return 0 if good else 3


@commands.command(name="list")
def list_plugins() -> None:
    """List the installed probes, aggregators and exporters."""
    rows = [("KIND", "NAME", "MODULE", "FROM")]
    rows += [
        (WORDS[info.group], info.name, info.module, f"{info.distribution} {info.version}")
        for info in plugins.discover().describe()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        click.echo("  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@commands.group()
def new() -> None:
    """Create a package for a new probe or exporter."""


@new.command(name="probe")
@click.argument("name")
def new_probe(name: str) -> None:
    """Create a working probe to start from: how long processes live."""
    _new(PROBES, name)


@new.command(name="exporter")
@click.argument("name")
def new_exporter(name: str) -> None:
    """Create a working exporter to start from: Markdown pages."""
    _new(EXPORTERS, name)


def _new(group: str, name: str) -> None:
    from .new import write

    folder = write(group, name, plugins.discover(), Path())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(path)
    click.echo(f"next: cd {folder} && pip install --editable '.[dev]' && pytest", err=True)


@commands.group(name="config")
def config_group() -> None:
    """Create and check configuration files."""


@config_group.command()
@click.argument("probes", nargs=-1, required=True, metavar="PROBE...")
def init(probes: tuple[str, ...]) -> None:
    """Print a commented TOML file with every option."""
    from ..config import reference

    found = plugins.discover()
    exporters = {name: found.config_type(EXPORTERS, name) for name in ("json", "csv", "stdout")}
    text = reference.toml({name: found.config_type(PROBES, name) for name in probes}, exporters)
    click.echo(text.encode(), nl=False)  # TOML is UTF-8, whatever the terminal's encoding


@config_group.command()
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a configuration file."""
    document = config.read(file)
    tables = document.tables.get("probe", {})
    _structure(document, tuple(tables) if isinstance(tables, dict) else (), plugins.discover())
    click.echo(f"{document.origin}: valid")


def _types(found: Plugins, group: str) -> config.TypeOf:
    return lambda name: found.config_type(group, name)


def _read(file: Path | None) -> config.Document:
    return config.read(file) if file is not None else config.Document({})


def _structure(document: config.Document, probes: tuple[str, ...], found: Plugins) -> config.Settings:
    probe, aggregator, exporter = (_types(found, group) for group in (PROBES, AGGREGATORS, EXPORTERS))
    return config.structure(document.tables, probes, probe, aggregator, exporter, document.origin, document.spelled)


def _privileged(btf: Path | None = None) -> kernel.KernelFacts:
    facts = kernel.detect(btf)
    if not facts.privileged:
        raise MissingError(
            f"user {os.geteuid()} may not load programs into the kernel",
            kernel.PRIVILEGES,
        )
    return facts


def _announce(stop: Stop, settings: config.Settings) -> Callable[[Mapping[str, Any]], None]:
    def announce(loaded: Mapping[str, Any]) -> None:
        """Says that the run has begun; from here on a signal ends it with its results."""
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
            numbers.remove(signal.SIGHUP)
        stop.at(numbers)
        until = f"for {settings.run.duration:g} s" if settings.run.duration else "until Ctrl-C"
        click.echo(f"measuring {', '.join(loaded)} {until}", err=True)

    return announce


def _progress(snapshot: Snapshot) -> None:
    figures = snapshot.figures
    parts = [f"{snapshot.taken - snapshot.started:5.0f} s  {snapshot.probe}"]
    for distribution in figures.distributions[:1]:
        wanted = ("p50", "p99", "p99.9")
        shown = "  ".join(f"{n} {distribution.percentiles[n]:,.1f}" for n in wanted if n in distribution.percentiles)
        parts.append(
            f"{distribution.events:,} {distribution.name}  {shown} {distribution.unit if shown else ''}".rstrip()
        )
    if not figures.distributions:
        totals = {name: value for name, value in figures.summary.items() if name.startswith("total_")}
        parts += [f"{value:,} {name.removeprefix('total_')}" for name, value in totals.items()]
    lost = sum(figures.lost.values())
    parts.append(f"lost {lost:,}" if lost else "nothing lost")
    click.echo("  ".join(parts), err=True)


def _no_progress(snapshot: Snapshot) -> None:
    """In a pipe nobody watches."""


def _report(title: str, facts: Any) -> bool:
    good = True
    click.secho(title, bold=True)
    for fact in facts:
        mark, colour = {True: ("ok", "green"), False: ("no", "red"), None: ("  ", None)}[fact.good]
        click.secho(f"  {mark} ", fg=colour, nl=False)
        text = lines(fact.text).replace("\n", "\n         ")  # what the verifier says takes several lines
        click.echo(f"{lines(fact.name)}: {text}" if text else lines(fact.name))
        if fact.good is False and fact.remedy:
            click.secho(f"     {fact.remedy}", fg="cyan")
        good &= fact.good is not False
    return good
