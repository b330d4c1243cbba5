"""Writes the parts of the documentation that come from the code; `check` as argument only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from probekit import plugins, reference
from probekit.plugins import EXPORTERS, PROBES

DOCS = Path(__file__).parent
HEAD = """\
# Configuration

Made by `./dev docs` from the configuration classes. `probekit config init latency` prints the same as a TOML file, and
`probekit config validate FILE` checks one. `--set probe.latency.sample=0.1` overrides one option, and
`--export KIND[:PATH]` adds an exporter to the chain.

Nothing is coerced and no unknown key is passed over: a file that has one is refused, with the path, the value and what
is allowed. Exporters run in the order of the file, and each gets every snapshot: one at each interval, one at the end.

"""


def pages() -> dict[str, str]:
    """The generated pages by file name, for the plugins that come with probekit."""
    found = plugins.discover()
    types = {
        group: {
            info.name: found.call(group, info.name, "probekit_config", name=info.name)
            for info in found.describe()
            if info.group == group and info.distribution == "probekit"
        }
        for group in (PROBES, EXPORTERS)
    }
    return {"configuration.md": HEAD + reference.markdown(types[PROBES], types[EXPORTERS])}


def main() -> int:
    """Writes or compares; 1 where a page is not what the code says."""
    made = pages()
    stale = [name for name, text in made.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != text]
    if "check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is not what the code says: run ./dev docs", file=sys.stderr)
        return int(bool(stale))
    for name, text in made.items():
        (DOCS / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
