"""Entry points to plugins. A plugin is imported when its name is asked for, and only then."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Any

import pluggy
from attrs import field, frozen

from . import hookspecs
from .config import suggestion
from .errors import InputError, PluginError

PROBES = "probekit.probes"
EXPORTERS = "probekit.exporters"
_WORDS = {PROBES: "probe", EXPORTERS: "exporter"}
_NEEDED = {
    PROBES: ("probekit_config", "probekit_attach", "probekit_decode", "probekit_aggregate"),
    EXPORTERS: ("probekit_config", "probekit_export"),
}


@frozen
class PluginInfo:
    """Where a plugin comes from.

    Attributes:
        group: `probekit.probes` or `probekit.exporters`.
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
        """All plugins, imported or not."""
        infos = []
        for (group, name), entries in sorted(self.found.items()):
            for entry in entries:
                dist = entry.dist
                infos.append(
                    PluginInfo(group, name, entry.value, dist.name if dist else "?", dist.version if dist else "?")
                )
        return infos

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
        result = self._manager.subset_hook_caller(hook, others)(**arguments)
        if result is None:
            raise PluginError(f"{_WORDS[group]} {plugin}: {hook} of {module.__name__} returned nothing")
        return result

    def _load(self, group: str, name: str) -> Any:
        registered = f"{group}:{name}"
        module = self._manager.get_plugin(registered)
        if module is not None:
            return module
        word = _WORDS[group]
        entries = self.found.get((group, name), [])
        if not entries:
            raise InputError(f"unknown {word} {name!r}{suggestion(name, self.names(group))}")
        if len(entries) > 1:
            owners = " and ".join(sorted(entry.dist.name if entry.dist else "?" for entry in entries))
            raise PluginError(f"{word} {name} is installed twice: by {owners}", "uninstall one of them")
        owner = f"{word} {name} ({entries[0].value}, from {entries[0].dist.name if entries[0].dist else '?'})"
        try:
            module = entries[0].load()
        except Exception as error:
            raise PluginError(f"{owner} cannot be imported: {type(error).__name__}: {error}") from error
        missing = [hook for hook in _NEEDED[group] if not hasattr(module, hook)]
        if missing:
            raise PluginError(f"{owner} does not implement {', '.join(missing)}")
        try:
            self._manager.register(module, registered)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.has_plugin(registered):
                self._manager.unregister(name=registered)
            raise PluginError(f"{owner}: {error}") from error
        return module


def discover() -> Plugins:
    """Finds the installed plugins without importing any."""
    found: dict[tuple[str, str], list[importlib.metadata.EntryPoint]] = {}
    for group in (PROBES, EXPORTERS):
        for entry in _unique(importlib.metadata.entry_points(group=group)):
            found.setdefault((group, entry.name), []).append(entry)
    plugins = Plugins(found)
    plugins._manager.add_hookspecs(hookspecs)
    return plugins


def _unique(entries: Iterable[importlib.metadata.EntryPoint]) -> list[importlib.metadata.EntryPoint]:
    """One entry for each plugin, also where a path that is searched twice lists a distribution twice."""
    seen = {(entry.name, entry.value, entry.dist.name if entry.dist else ""): entry for entry in entries}
    return list(seen.values())
