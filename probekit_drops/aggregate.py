"""Columns of the drop probe to figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probekit import Attached, Columns, Deferred, Figures, Table
from probekit.decode import text
from probekit.model import Array

from . import funnel, tables
from .config import DropsConfig
from .rows import HookEntry, Namer, Place, namespaces, socket_owners
from .values import NO_HOOK, NO_REASON

_OF_PLACES = {"netns": 0, "chain": 0, "hook": NO_HOOK, "family": 0, "state": 0}


class DropsAggregator:
    """Keeps the figures of one run."""

    def __init__(self, config: DropsConfig, attached: tuple[Attached, ...] = ()) -> None:
        self._config = config
        self._programs = {entry.point.program for entry in attached if entry.point is not None}
        self._attached = attached
        self._namer = Namer()
        self._flows: Mapping[str, Array] = {}
        self._places: Mapping[str, Array] = {}
        self._layers: Mapping[str, Array] = {}
        self._entries: dict[tuple[int, int, int], list[HookEntry]] = {}
        self._counters: dict[str, int] = {}
        self._fresh: list[Mapping[str, Array]] = []
        self._devices: dict[tuple[int, int], str] = {}
        self._owners: dict[int, tuple[int, str]] = {}
        self._namespaces: dict[int, str] = {}
        self._own = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116  (a path would follow nothing else)

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""
        getattr(self, f"_take_{columns.source}")(columns.values)

    def snapshot(self) -> Figures:
        """The figures as they are now."""
        self._namespaces |= namespaces()
        stream = self._stream() if self._config.mode == "events" else None
        if not self._flows:
            return Figures(summary=self._summary(np.zeros(0, bool), []), lost=self._lost(), stream=stream)
        self._find_owners(self._flows["socket"])
        found = tables.places(self._flows, self._namer, self._entries)
        others = {
            **self._places,
            **{name: np.full(len(self._places["location"]), v) for name, v in _OF_PLACES.items()},
        }
        found_others = tables.places(others, self._namer, self._entries)
        return Figures(
            summary=self._summary(tables.is_normal([*found, *found_others]), [*found, *found_others]),
            tables=Deferred(self._tables(found, self._flows, found_others, self._places, self._funnel())),
            lost=self._lost(),
            stream=stream,
        )

    def _tables(
        self,
        found: list[Place],
        flows: Mapping[str, Array],
        others: list[Place],
        places: Mapping[str, Array],
        layers: Table | None,
    ) -> Callable[[], tuple[Table, ...]]:
        """Text for many rows takes a while, and not everybody wants it."""

        def make() -> tuple[Table, ...]:
            every = [*found, *others]
            counts = {name: np.concatenate([flows[name], places[name]]) for name in ("drops", "packets", "bytes")}
            normal = tables.is_normal(every)
            lost_flows = ~tables.is_normal(found)
            made = [
                tables.reasons(*_chosen(~normal, every, counts), "drops"),
                tables.flows(
                    *_chosen(lost_flows, found, flows), self._namespaces,
                    tables.device_names(flows, self._devices)[lost_flows], self._owners,
                ),
            ]  # fmt: skip
            if layers is not None:
                made.insert(1, layers)
            if normal.any():
                made.append(tables.reasons(*_chosen(normal, every, counts), "normal"))
            return tuple(made)

        return make

    def _funnel(self) -> Table | None:
        if not self._config.layers:
            return None
        runs = funnel.xdp_runs(self._attached)
        return funnel.table(self._layers, self._own, self._config.devices, self._programs, runs)

    def _take_flows(self, values: Mapping[str, Array]) -> None:
        self._flows = values

    def _take_places(self, values: Mapping[str, Array]) -> None:
        self._places = values

    def _take_layers(self, values: Mapping[str, Array]) -> None:
        self._layers = values

    def _take_events(self, values: Mapping[str, Array]) -> None:
        self._fresh.append(values)

    def _take_counters(self, values: Mapping[str, Array]) -> None:
        self._counters = {name: int(value[0]) for name, value in values.items()}

    def _take_hooks(self, values: Mapping[str, Array]) -> None:
        self._entries = {}
        words = {name: text(values[name]).tolist() for name in ("table", "name", "legacy")}
        keys = zip(*(values[name].tolist() for name in ("netns", "family", "hook")), strict=True)
        for row, key in enumerate(keys):
            if values["function"][row]:
                function, _ = self._namer.symbols.function(int(values["function"][row]) + 1)
                entry = HookEntry(function, int(values["chain"][row]), *(words[name][row] for name in words))
                self._entries.setdefault(key, []).append(entry)

    def _find_owners(self, inodes: Array) -> None:
        unknown = set(np.unique(inodes).tolist()) - {0} - set(self._owners)
        self._owners |= socket_owners(unknown)

    def _stream(self) -> Table:
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return Table(name="events", columns=(), key=np.arange(0))
        values = {name: np.concatenate([batch[name] for batch in fresh]) for name in fresh[0]}
        self._find_owners(values["socket"])
        found = tables.places(values, self._namer, self._entries)
        stacks = tables.stack_texts(values["stack"], values["location"], self._namer) if "stack" in values else None
        devices = tables.device_names(values, self._devices)
        return tables.events(found, values, self._namespaces, devices, self._owners, stacks)

    def _summary(self, normal: Array, found: list[Place]) -> dict[str, Any]:
        count = self._counters.get
        drops = np.concatenate([self._flows["drops"], self._places["drops"]]) if found else np.zeros(0, np.uint64)
        categories: dict[str, int] = {}
        for place, is_normal, number in zip(found, normal.tolist(), drops.tolist(), strict=True):
            if not is_normal:
                categories[place.category.value] = categories.get(place.category.value, 0) + number
        streamed = {"streamed": count("sent", 0), "held_back": count("held_back", 0)}
        return {
            "total_drops": int(drops[~normal].sum()),
            "categories": dict(sorted(categories.items(), key=lambda item: -item[1])),
            "normal_frees": int(drops[normal].sum()),
            "not_packets": count("not_packets", 0),
            "filtered": count("filtered", 0),
            "flows_unlisted": count("unlisted", 0),
            **(streamed if self._config.mode == "events" else {}),
            "reasons": self._reasons(),
        }

    def _reasons(self) -> str:
        given = self._flows and (self._flows["reason"] != NO_REASON).any()
        return "given" if given or self._namer.reasons else "not given by this kernel (before 5.17)"

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "drops_uncounted": count("uncounted", 0) + count("interrupted", 0),
            "layers_full": count("layers_full", 0),
            "events_ring_full": count("events_lost", 0),
        }


def _chosen(which: Array, found: list[Place], values: Mapping[str, Array]) -> tuple[list[Place], dict[str, Array]]:
    """The rows that are wanted."""
    return (
        [place for place, wanted in zip(found, which.tolist(), strict=True) if wanted],
        {name: value[which] for name, value in values.items()},
    )
