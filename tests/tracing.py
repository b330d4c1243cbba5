"""Other people's tracing tools, as they are run here."""

from __future__ import annotations


def with_tracefs(*command: str) -> list[str]:
    """A command that sees tracefs, which not every machine has mounted: by a mount that is gone with the command.

    Tools that know tracepoints by name look there for their numbers.
    """
    script = 'test -e /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]
