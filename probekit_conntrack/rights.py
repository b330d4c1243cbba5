"""What a run lacks the rights to know."""

from __future__ import annotations

from pathlib import Path

from probekit import host
from probekit.host import OWN, Survey, inside

_ENTER, _LOOK = "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"


def not_known(there: Survey, asked: Path) -> dict[str, str]:
    """Figures that are not all there, each with why, and with the capability that this process lacks.

    Args:
        there: Network namespaces as far as they are seen.
        asked: The one that is tracked; ours stands for all.
    """
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
