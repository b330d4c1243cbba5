"""What the drop probe says of a machine that has odd names, and one that lets it see little."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from probekit.drain.layout import as_dtype
from probekit.model import Array
from probekit.testing import Harnesses
from probekit_drops import nothing
from tests.kernel.drop_cases import PORT, RIGHT, SENT, send, steady
from tests.kernel.measured import measured
from tests.kernel.netns import Namespace, lab


def test_odd_names_cost_a_name_and_no_result(tmp_path: Path) -> None:
    """Of a process, which anybody may give itself, and of namespaces that are gone."""
    dangling = Path("/run/netns", f"pk{os.getpid()}-dangling")
    with lab() as bench:
        left, right = bench.pair()
        dangling.symlink_to("/nowhere")
        try:
            with measured(tmp_path) as result, _named(right, b"caf\xe9\x1b[31m\nx"):
                left.call(send, 50, (RIGHT, PORT), 1000)
                lost = steady(lambda: right.snmp()["UdpRcvbufErrors"], 1)
                shown = tmp_path / "drops.json"
                end = time.monotonic() + 30
                while "caf" not in shown.read_text() and time.monotonic() < end:  # while the process is there
                    time.sleep(0.1)
        finally:
            dangling.unlink()
    rows = [row for row in result["flows"].values() if row["netns"] == right.name]
    assert [(row["process"], row["drops"]) for row in rows] == [("caf\ufffd\x1b[31m\nx", lost)]


@contextmanager
def _named(space: Namespace, name: bytes) -> Iterator[None]:
    """A process of this name with a socket at PORT that takes little and reads nothing."""
    code = (
        "import ctypes, socket, sys\n"
        "ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)\n"
        "full = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)\n"
        "full.bind((sys.argv[2], int(sys.argv[3])))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = ["ip", "netns", "exec", space.name, sys.executable, "-c", code, name.hex(), RIGHT, str(PORT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield


def test_without_the_right_to_see_more_no_address_is_shown_and_what_is_missing_is_said(tmp_path: Path) -> None:
    dropped = "-syslog,-sys_ptrace,-dac_read_search,-dac_override"
    within = ("setpriv", "--bounding-set", dropped, "--inh-caps", dropped)
    stream = tmp_path / "stream"
    options = [word for option in ("mode=events", "stacks=true") for word in ("--set", f"probe.drops.{option}")]
    holder = subprocess.Popen(
        ["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "600"], stdin=subprocess.DEVNULL
    )
    with lab() as bench:
        left, right = bench.pair()
        right.nft(f"table ip t {{\n chain c {{\n type filter hook input priority 0;\n udp dport {PORT} drop\n }}\n}}\n")
        try:
            with (
                measured(tmp_path, *options, "--export", f"jsonl:{stream}", within=within) as result,
                right.entered(),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
            ):
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                receiver.bind((RIGHT, PORT + 1))
                left.call(send, SENT, (RIGHT, PORT))
                left.call(send, SENT, (RIGHT, PORT + 1), 1000)
                receiver.close()
        finally:
            holder.kill()
            holder.wait()
    rows = [row for row in result["flows"].values() if row["netns"] == right.name and row["reason"] == "NETFILTER_DROP"]
    assert [(row["category"], row["hook"], row["location"], row["drops"]) for row in rows] == [
        ("firewall", "input", "(hidden)", SENT)
    ]
    assert set(result["not_known"]) == {"functions", "chains", "stacks", "processes"}
    assert "CAP_SYSLOG" in result["not_known"]["functions"]
    assert "CAP_SYS_PTRACE" in result["not_known"]["processes"]
    assert not re.search("0xffff|ffff[0-9a-f]{12}", (tmp_path / "drops.json").read_text() + stream.read_text())


def test_columns_before_the_first_data_are_those_of_the_maps(probe_harness: Harnesses) -> None:
    compiled = probe_harness("drops", mode="events", stacks=True).compile()
    layouts = {spec.name: [as_dtype(spec.key), as_dtype(spec.value)] for spec in compiled.maps}
    event = dict(layouts["events_layout"][1].fields or {})
    flow = event.pop("flow")[0]
    of_event = {**_kinds(flow), **{name: entry[0] for name, entry in event.items()}}
    assert not _unlike({**nothing.EVENTS, **nothing.STACKS}, of_event)
    for columns, source in ((nothing.FLOWS, "flows"), (nothing.PLACES, "places"), (nothing.LAYERS, "layers")):
        key, value = layouts[source]
        assert not _unlike(columns, {**_kinds(key), **_kinds(value)})


def _kinds(layout: np.dtype[Any]) -> dict[str, np.dtype[Any]]:
    return {name: entry[0] for name, entry in (layout.fields or {}).items()}


def _unlike(columns: Mapping[str, Array], layout: dict[str, np.dtype[Any]]) -> list[str]:
    """Columns that are there of another kind."""
    same = {name: np.zeros(0, kind) for name, kind in layout.items()}
    return [
        name for name, values in columns.items()
        if (values.dtype.itemsize, values.shape[1:]) != (same[name].dtype.itemsize, same[name].shape[1:])
    ]  # fmt: skip
