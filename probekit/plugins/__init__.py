"""Entry points to plugins. A plugin is imported when its name is asked for, and only then."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pluggy
from attrs import field, frozen

from ..config import suggestion
from ..config.options import fault
from ..errors import InputError, PluginError, ProbekitError
from ..model import AttachPlan
from ..words import printable
from . import distribution, hookspecs

PROBES = "probekit.probes"
AGGREGATORS = "probekit.aggregators"
EXPORTERS = "probekit.exporters"
WORDS = {PROBES: "probe", AGGREGATORS: "aggregator", EXPORTERS: "exporter"}
NEEDED = {
    PROBES: ("probekit_config", "probekit_attach", "probekit_decode", "probekit_aggregate"),
    AGGREGATORS: ("probekit_config", "probekit_aggregate"),
    EXPORTERS: ("probekit_config", "probekit_export"),
}
"""The hooks that a plugin of each group implements."""

_WHERE = "probekit --debug ... shows where"


@frozen
class PluginInfo:
    """Where a plugin comes from.

    Attributes:
        group: Its entry point's group, one of `NEEDED`.
        name: Its name.
        module: The module of its hooks.
        distribution: The installed package.
        version: That package's version.
    """

    group: str
    name: str
    module: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{WORDS[self.group]} {self.name} ({self.module}, from {self.distribution} {self.version})"


@frozen
class Plugins:
    """The plugins that are installed.

    Attributes:
        found: All of them, by group and name.
    """

    found: dict[tuple[str, str], list[importlib.metadata.EntryPoint]]
    _manager: pluggy.PluginManager = field(factory=lambda: pluggy.PluginManager(hookspecs.PROJECT))

    def names(self, group: str) -> tuple[str, ...]:
        """Names of one group, sorted."""
        return tuple(sorted(name for g, name in self.found if g == group))

    def describe(self) -> list[PluginInfo]:
        """All plugins, imported or not, by kind and name."""
        order = tuple(WORDS)
        keys = sorted(self.found, key=lambda key: (order.index(key[0]), key[1]))
        return [info for group, name in keys for info in self.infos(group, name)]

    def infos(self, group: str, name: str) -> list[PluginInfo]:
        """What is installed of one name; more than one where packages contend for it."""
        return [PluginInfo(group, name, entry.value, *_owner(entry)) for entry in self.found.get((group, name), [])]

    def config_type(self, group: str, name: str) -> type:
        """The configuration class of a plugin.

        Raises:
            InputError: No plugin has that name.
            PluginError: It cannot be imported, or does not keep the contract.
        """
        kind: type = self.call(group, name, "probekit_config", name=name)
        return kind

    def call(self, group: str, plugin: str, hook: str, **arguments: Any) -> Any:
        """Calls one hook of one plugin.

        Args:
            group: The plugin's group.
            plugin: Its name.
            hook: The hook's name.
            arguments: All arguments of the hook's specification.

        Raises:
            InputError: No plugin has that name.
            PluginError: It cannot be imported, or does not keep the contract.
        """
        module = self._load(group, plugin)
        others = [m for m in self._manager.get_plugins() if m is not module]
        with self.blaming(group, plugin, hook):
            result = self._manager.subset_hook_caller(hook, others)(**arguments)
        wrong = _RETURNS[hook](result)
        if wrong:
            raise PluginError(f"{self.infos(group, plugin)[0]}: {hook} returned an invalid value: {wrong}")
        return result

    def blaming(self, group: str, plugin: str, place: str, kind: type[ProbekitError] = PluginError) -> Blaming:
        """Around a plugin's own code: what it raises becomes an error that names plugin and package.

        Args:
            group: The plugin's group.
            plugin: Its name.
            place: What of it is called.
            kind: Of that error.
        """
        return Blaming(lambda: f"{self.infos(group, plugin)[0]}: {place} failed", kind)

    def _load(self, group: str, name: str) -> Any:
        registered = f"{group}:{name}"
        module = self._manager.get_plugin(registered)
        if module is not None:
            return module
        word = WORDS[group]
        entries = self.found.get((group, name), [])
        if not entries:
            raise InputError(f"unknown {word} '{printable(name)}'{suggestion(name, self.names(group))}")
        infos = self.infos(group, name)
        if len(infos) > 1:
            owners = " and by ".join(sorted(f"{info.distribution} {info.version}" for info in infos))
            raise _unusable(f"{word} {name} is installed twice: by {owners}", "uninstall one of them")
        try:
            module = entries[0].load()
        except Exception as error:
            raise _unusable(f"{infos[0]} cannot be imported: {_words(error)}", _WHERE) from error
        self._check(module, infos[0])
        if self._manager.is_registered(module):
            other = str(self._manager.get_name(module)).partition(":")[2]
            raise PluginError(f"{infos[0]}: its module is that of {other}; each name needs a module of its own")
        self._manager.register(module, registered)
        return module

    def _check(self, module: Any, info: PluginInfo) -> None:
        """Refuses a module whose hooks do not fit the specifications."""
        marked = sorted(name for name in dir(module) if self._manager.parse_hookimpl_opts(module, name) is not None)
        wrong = [f"there is no hook {name}{suggestion(name, HOOKS)}" for name in marked if name not in HOOKS]
        wrong += [
            f"{name} gets no argument {argument}{suggestion(argument, arguments_of(name))}"
            for name in marked
            if name in HOOKS
            for argument in inspect.signature(getattr(module, name)).parameters
            if argument not in arguments_of(name)
        ]
        wrong += [
            f"{name} lacks @probekit.hook" if hasattr(module, name) else f"{name} is missing"
            for name in NEEDED[info.group]
            if name not in marked
        ]
        if wrong:
            raise _unusable(f"{info}: {'; '.join(wrong)}")


@frozen
class Blaming:
    """A context that says whose fault an exception is. Errors of probekit's own kind pass as they are.

    Attributes:
        place: Says what failed; asked only then, because a package's name takes reading its metadata.
        kind: The error that is raised instead.
    """

    place: Callable[[], str]
    kind: type[ProbekitError]

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raises an error from what a plugin raised."""
        if isinstance(error, Exception) and not isinstance(error, ProbekitError):
            raise self.kind(f"{self.place()}: {_words(error)}", _WHERE) from error


def _owner(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point is of, from its metadata, which may not be readable now."""
    try:
        return (entry.dist.name, entry.dist.version) if entry.dist is not None else ("?", "?")
    except OSError:
        return ("?", "?")


def _unusable(message: str, hint: str = "") -> PluginError:
    """A plugin that cannot be used. Where another package has put its files over ours, that is why."""
    other = distribution.stranger()
    return PluginError(f"{message}; {other}", distribution.REMEDY) if other else PluginError(message, hint)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _config_fault(result: Any) -> str:
    return fault(result)


def _plan_fault(result: Any) -> str:
    if not isinstance(result, AttachPlan):
        return f"{result!r} is not an AttachPlan"
    return "" if result.source.is_file() else f"its source {result.source} does not exist"


def _lacks(*methods: str) -> Callable[[Any], str]:
    def wrong(result: Any) -> str:
        missing = [method for method in methods if not callable(getattr(result, method, None))]
        return f"{result!r} has no {', '.join(missing)}()" if missing else ""

    return wrong


def _decoder_fault(result: Any) -> str:
    return "" if callable(result) else f"{result!r} is no function"


_RETURNS: dict[str, Callable[[Any], str]] = {
    "probekit_config": _config_fault,
    "probekit_attach": _plan_fault,
    "probekit_decode": _decoder_fault,
    "probekit_aggregate": _lacks("update", "snapshot"),
    "probekit_export": _lacks("__enter__", "__exit__", "export"),
}
HOOKS = tuple(_RETURNS)


def arguments_of(hook: str) -> tuple[str, ...]:
    """The arguments that an implementation of a hook may take."""
    return tuple(inspect.signature(getattr(hookspecs, hook)).parameters)


def discover() -> Plugins:
    """Finds the installed plugins without importing any."""
    found: dict[tuple[str, str], list[importlib.metadata.EntryPoint]] = {}
    installed = importlib.metadata.entry_points()  # once: it reads a file of every installed distribution
    for group in WORDS:
        for entry in installed.select(group=group):
            found.setdefault((group, entry.name), []).append(entry)
    plugins = Plugins({key: entries if len(entries) == 1 else _unique(entries) for key, entries in found.items()})
    plugins._manager.add_hookspecs(hookspecs)
    return plugins


def _unique(entries: Iterable[importlib.metadata.EntryPoint]) -> list[importlib.metadata.EntryPoint]:
    """One entry for each plugin, also where a path that is searched twice lists a distribution twice.

    The name of a distribution takes reading its metadata, which is why nobody is asked for it that is alone.
    """
    seen = {(entry.name, entry.value, entry.dist.name if entry.dist else ""): entry for entry in entries}
    return list(seen.values())
