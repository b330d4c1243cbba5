"""How the distributions call what probekit needs of them."""

from __future__ import annotations

import platform

_COMMANDS = {
    "debian": "apt-get install python3-bpfcc bpftool",
    "ubuntu": "apt-get install python3-bpfcc linux-tools-common linux-tools-generic",
    "fedora": "dnf install python3-bcc bpftool",
    "arch": "pacman -S python-bcc bpf",
    "alpine": "apk add py3-bcc bcc bpftool",
}


def command() -> str:
    """The command for this distribution, or all of them where it is none of these."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()):
        if name in _COMMANDS:
            return _COMMANDS[name]
    return "; ".join(f"{name}: {line}" for name, line in _COMMANDS.items())
