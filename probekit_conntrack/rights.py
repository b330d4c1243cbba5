"""What the machine says of its network namespaces, and what a run lacks the rights to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probekit import host
from probekit.host import OWN, Survey, inside, survey

_ENTER, _LOOK = "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def look_around(asked: Path, number: int, wanted: list[int]) -> dict[str, Any]:
    """Network namespaces as far as they are seen.

    Args:
        asked: The one that is tracked; ours stands for all.
        number: Its inode.
        wanted: Those whose clients' ports are in use.

    Returns:
        `not_known`: figures that are not all there, each with why, and with the capability that this process lacks;
        `ports`: how many ephemeral ports the wanted namespaces have, by their numbers.
    """
    there = survey()
    ways = {**there.found, number: asked} if wanted else {}
    ports = {str(each): _ports(path) for each, path in ways.items() if each in wanted}
    known = {each: count for each, count in ports.items() if count is not None}
    return {"not_known": _not_known(there, asked), "ports": known}


def _ports(path: Path) -> int | None:
    try:
        low, high = map(int, inside(path, lambda: host.read(_PORT_RANGE)).split())
    except (OSError, ValueError):
        return None
    return high - low + 1


def _not_known(there: Survey, asked: Path) -> dict[str, str]:
    closed = _may_not_enter(asked)
    missing = {}
    if closed:
        missing["netfilter"] = f"needs {_ENTER}: the network namespace may not be entered"
    if asked == OWN:
        others = [path for number, path in there.found.items() if path != OWN]
        closed = bool(others) and _may_not_enter(others[0])
    if closed:
        why = (
            f"needs {_ENTER}: connections that were open in other network namespaces are seen once their state changes"
        )
        missing["already_open"] = missing["connections"] = why
        missing["findings"] = f"needs {_ENTER}: nothing is known of ephemeral ports in other network namespaces"
    elif there.refused and asked == OWN and host.lacked((_LOOK,)):  # some are hidden from whoever may look at all
        why = f"needs {_LOOK}: {there.refused} processes may be in network namespaces that are not seen"
        missing["already_open"] = missing["connections"] = missing["findings"] = why
    return missing


def _may_not_enter(path: Path) -> bool:
    try:
        inside(path, bool)
    except PermissionError:
        return True
    except OSError:  # it is gone
        return False
    return False
