"""Plugins that are whole but for one thing each."""

from pathlib import Path

from attrs import frozen
from probekit import AttachPlan, Figures, Observation, hook
from probekit.attach import Tracepoint
from probekit.drain import PerCpuArray


@frozen
class Config:
    """Nothing to choose."""


class Aggregator:
    """Has nothing to say."""

    def update(self, columns):
        pass

    def snapshot(self):
        return Figures({"total_events": 0})


class Exporter:
    """Writes nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def export(self, snapshot):
        pass


def plan(source="exits.bpf.c", map_name="counters"):
    return AttachPlan(
        source=Path(__file__).with_name(source),
        observations=(Observation("exit", (Tracepoint("sched_process_exit", "process_exit"),)),),
        sources=(PerCpuArray(map_name),),
    )


def fails(*_):
    raise RuntimeError("broken on purpose")


def _fails_in(kind, method):
    return type(kind.__name__, (kind,), {method: fails})()


class Plugin:
    """A probe, aggregator or exporter; what is given replaces a hook."""

    def __init__(self, **hooks):
        whole = {
            "probekit_config": lambda: Config,
            "probekit_attach": lambda: plan(),
            "probekit_decode": lambda: lambda batch: __import__("probekit").Columns(batch.source, {}),
            "probekit_aggregate": lambda: Aggregator(),
            "probekit_export": lambda: Exporter(),
        }
        for name, function in {**whole, **hooks}.items():
            setattr(self, name, hook(function))


def _raises():
    fails()


def _misspelt(confg):
    return plan()


@frozen
class _Plain:
    """Its field is not made by option()."""

    width: int = 3


class _Writes(Aggregator):
    def update(self, columns):
        for values in columns.values.values():
            values[...] = 0


class _SecondSnapshot(Aggregator):
    made = 0

    def snapshot(self):
        self.made += 1
        if self.made == 2:
            fails()
        return Figures({"total_events": self.made})


whole = Plugin()
unknown_hook = Plugin(probekit_atach=lambda: plan())
unmarked_hook = Plugin()
unmarked_hook.probekit_attach = plan
missing_hook = Plugin()
del missing_hook.probekit_decode
wrong_argument = Plugin(probekit_attach=_misspelt)
bad_config = Plugin(probekit_config=lambda: _Plain)
no_source = Plugin(probekit_attach=lambda: plan(source="nowhere.bpf.c"))
wrong_source = Plugin(probekit_attach=lambda: plan(map_name="countres"))
in_config = Plugin(probekit_config=_raises)
in_attach = Plugin(probekit_attach=_raises)
in_decode = Plugin(probekit_decode=_raises)
in_aggregate = Plugin(probekit_aggregate=_raises)
in_decoder = Plugin(probekit_decode=lambda: fails)
in_update = Plugin(probekit_aggregate=lambda: _fails_in(Aggregator, "update"))
in_snapshot = Plugin(probekit_aggregate=lambda: _fails_in(Aggregator, "snapshot"))
in_second_snapshot = Plugin(probekit_aggregate=lambda: _SecondSnapshot())
added_in_aggregate = Plugin(probekit_aggregate=_raises)
added_in_update = Plugin(probekit_aggregate=lambda: _fails_in(Aggregator, "update"))
added_in_snapshot = Plugin(probekit_aggregate=lambda: _fails_in(Aggregator, "snapshot"))
added_writes = Plugin(probekit_aggregate=lambda: _Writes())
out_in_export_hook = Plugin(probekit_export=_raises)
out_in_enter = Plugin(probekit_export=lambda: _fails_in(Exporter, "__enter__"))
out_in_export = Plugin(probekit_export=lambda: _fails_in(Exporter, "export"))
out_in_exit = Plugin(probekit_export=lambda: _fails_in(Exporter, "__exit__"))
