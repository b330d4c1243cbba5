"""Columns of the drop probe to figures."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from probekit import Array, Attached, Columns, Deferred, Figures, Table, host
from probekit.decode import text
from probekit.host import OWN, Machine

from . import funnel, nothing, tables
from .config import DropsConfig
from .netfilter import HookEntry, Key, key
from .owners import Owners, namespaces
from .rows import Namer, Place
from .values import NO_HOOK, NO_REASON

_OF_PLACES = {
    "netns": 0, "ifindex": 0, "chain": 0, "ran": 0, "ran_with": 0, "hook": NO_HOOK, "family": 0, "state": 0,
}  # fmt: skip
_KEPT = 64  # functions of a hook that are there no more
_WITHOUT_SYMBOLS = (
    "not shown without CAP_SYSLOG: the kernel hides from this process where its functions are (kernel.kptr_restrict)"
)


class DropsAggregator:
    """Keeps the figures of one run."""

    def __init__(self, config: DropsConfig, attached: tuple[Attached, ...], machine: Machine) -> None:
        self._config = config
        self._machine = machine
        self._programs = {entry.point.program for entry in attached if entry.point is not None}
        self._attached = attached
        # from 6.11 on the receiver is told, too
        self._namer = Namer(machine, nft_frees="drop_with_receiver" in self._programs)
        self._flows = nothing.FLOWS
        self._places = nothing.PLACES
        self._layers = nothing.LAYERS
        self._entries: dict[Key, list[HookEntry]] = {}
        self._counters: dict[str, int] = {}
        self._fresh: list[Mapping[str, Array]] = []
        self._unstreamed = 0
        self._devices: Mapping[tuple[int, int], str] = {}
        self._owners = Owners(machine)
        self._namespaces: Mapping[int, str] = {}
        self._own = machine.ask(host.inode, OWN) or 0
        self._own_devices = funnel.Devices(machine)
        self._runs: dict[str, int] = {}
        self._reading: threading.Thread | None = None

    def read_ahead(self) -> None:
        """Begins to read the kernel's names, which the first snapshot would wait for."""
        self._reading = self._namer.read_ahead()

    def update(self, columns: Columns) -> None:
        """Takes one decoded batch."""
        getattr(self, f"_take_{columns.source}")(columns.values)

    def snapshot(self) -> Figures:
        """The figures as they are now."""
        self._look()
        found = tables.places(self._flows, self._namer, self._entries)
        others = {
            **self._places,
            **{name: np.full(len(self._places["location"]), v) for name, v in _OF_PLACES.items()},
        }
        found_others = tables.places(others, self._namer, self._entries)
        known = self._known(self._flows)
        return Figures(
            summary=self._summary(tables.is_normal([*found, *found_others]), [*found, *found_others]),
            tables=Deferred(partial(_tables, found, self._flows, found_others, self._places, known, self._funnel())),
            lost=self._lost(),
        )

    def stream(self) -> Table | None:
        """Drops since the last call."""
        if self._config.mode != "events":
            return None
        self._look()
        return self._stream()

    def _look(self) -> None:
        """What names are from, as it is now."""
        if self._reading is not None:
            self._reading.join()
        self._namespaces = {**self._namespaces, **dict(self._machine.ask(namespaces))}

    def _known(self, values: Mapping[str, Array]) -> tables.Known:
        """The names of what these rows have numbers of, as they are now; nothing that changes it later."""
        owners = self._owners.of(set(np.unique(values["socket"]).tolist()))
        return tables.Known(self._namespaces, self._devices, owners)

    def _funnel(self) -> Table | None:
        if not self._config.layers:
            return None
        seen = tables.devices(self._flows).items()
        self._own_devices.look({number: name for (netns, number), name in seen if netns == self._own})
        for device, runs in funnel.xdp_runs(self._machine, self._attached).items():
            self._runs[device] = max(runs, self._runs.get(device, 0))
        return funnel.table(
            self._layers, self._own, self._config.devices, self._programs, self._runs, self._own_devices
        )

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
        words = {name: text(values[name]).tolist() for name in ("table", "name", "legacy")}
        keys = zip(*(values[name].tolist() for name in ("netns", "family", "hook", "ifindex")), strict=True)
        now: dict[Key, list[HookEntry]] = {}
        for row, (netns, family, hook, ifindex) in enumerate(keys):
            if values["function"][row]:
                function, _ = self._namer.function(int(values["function"][row]) + 1)
                entry = HookEntry(function, int(values["chain"][row]), *(words[name][row] for name in words))
                now.setdefault(key(netns, family, hook, ifindex), []).append(entry)
        for place, before in self._entries.items():  # what a new ruleset has replaced may have dropped until then
            kept = [entry for entry in before if entry not in now.get(place, [])]
            now[place] = [*now.get(place, []), *kept[:_KEPT]]
        self._entries = now

    def _stream(self) -> Table:
        none = {**nothing.EVENTS, **(nothing.STACKS if self._config.stacks else {})}
        fresh, self._fresh = self._fresh or [none], []
        values = {name: np.concatenate([batch[name] for batch in fresh]) for name in fresh[0]}
        found = tables.places(values, self._namer, self._entries)
        self._devices = {**self._devices, **tables.devices(values)}
        lost = ~tables.is_normal(found)
        self._unstreamed += len(found) - int(lost.sum())
        found, values = _chosen(lost, found, values)
        stacks = tables.stack_texts(values["stack"], values["location"], self._namer) if "stack" in values else None
        return tables.events(found, values, self._known(values), stacks)

    def _summary(self, normal: Array, found: list[Place]) -> dict[str, Any]:
        count = self._counters.get
        drops = np.concatenate([self._flows["drops"], self._places["drops"]])
        categories: dict[str, int] = {}
        for place, is_normal, number in zip(found, normal.tolist(), drops.tolist(), strict=True):
            if not is_normal:
                categories[place.category.value] = categories.get(place.category.value, 0) + number
        streamed = {"streamed": count("sent", 0) - self._unstreamed, "held_back": count("held_back", 0)}
        return {
            "total_drops": int(drops[~normal].sum()),
            "categories": dict(sorted(categories.items(), key=lambda item: -item[1])),
            "normal_frees": int(drops[normal].sum()),
            "not_packets": count("not_packets", 0),
            "filtered": count("filtered", 0),
            "flows_unlisted": count("unlisted", 0),
            **(streamed if self._config.mode == "events" else {}),
            "reasons": self._reasons(),
            "not_known": self._not_known(),
        }

    def _not_known(self) -> dict[str, str]:
        """What this process lacks the rights to say, and which rights these are."""
        missing: dict[str, str] = {}
        if self._namer.hidden:
            names = ("functions", "chains", *(("stacks",) if self._config.stacks else ()))
            missing |= dict.fromkeys(names, _WITHOUT_SYMBOLS)
        if self._owners.refused and self._owners.lacking:
            needed = " and ".join(self._owners.lacking)
            missing["processes"] = (
                f"not all shown without {needed}: this process may not see what {self._owners.refused} others hold"
            )
        return missing

    def _reasons(self) -> str:
        given = (self._flows["reason"] != NO_REASON).any()
        return "given" if given or self._namer.reasons else "not given by this kernel (before 5.17)"

    def _lost(self) -> dict[str, int]:
        count = self._counters.get
        return {
            "drops_uncounted": count("uncounted", 0) + count("interrupted", 0),
            "layers_full": count("layers_full", 0),
            "events_ring_full": count("events_lost", 0),
        }


def _tables(
    found: list[Place],
    flows: Mapping[str, Array],
    others: list[Place],
    places: Mapping[str, Array],
    known: tables.Known,
    layers: Table | None,
) -> tuple[Table, ...]:
    """Text for many rows takes a while, and not everybody wants it: made later, of what does not change any more."""
    every = [*found, *others]
    counts = {name: np.concatenate([flows[name], places[name]]) for name in ("drops", "packets", "bytes")}
    normal = tables.is_normal(every)
    return (
        tables.reasons(*_chosen(~normal, every, counts), "drops"),
        *(() if layers is None else (layers,)),
        tables.flows(*_chosen(~tables.is_normal(found), found, flows), known),
        tables.reasons(*_chosen(normal, every, counts), "normal"),
    )


def _chosen(which: Array, found: list[Place], values: Mapping[str, Array]) -> tuple[list[Place], dict[str, Array]]:
    """The rows that are wanted."""
    return (
        [place for place, wanted in zip(found, which.tolist(), strict=True) if wanted],
        {name: value[which] for name, value in values.items()},
    )
