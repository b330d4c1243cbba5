"""`probekit new`: the package of a new plugin, which works as it is written and is there to be changed."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from ..errors import InputError
from ..plugins import EXPORTERS, PROBES, Plugins, distribution
from ..words import printable

LONGEST = 60
"""Characters of a name: modules, folders and C types are called by it."""

_TEMPLATES = Path(__file__).parent / "templates"
_STAND_INS = {PROBES: ("probe", "yourprobe"), EXPORTERS: ("exporter", "yourexporter")}


def write(group: str, name: str, found: Plugins, folder: Path) -> Path:
    """Writes the package.

    Args:
        group: `probekit.probes` or `probekit.exporters`.
        name: The new plugin's name.
        found: The installed plugins.
        folder: Where the package's folder is made.

    Returns:
        The package's folder, `probekit-NAME`.

    Raises:
        InputError: The name cannot be used, or the folder is there already or cannot be written.
    """
    word, stand_in = _STAND_INS[group]
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise InputError(
            f"'{printable(name)}' cannot be a plugin's name",
            f"at most {LONGEST} small letters and digits, and _ between them, as a Python module's",
        )
    for info in found.infos(group, name):
        raise InputError(f"there is {_article(word)} {word} of that name already: {info}", "take another name")
    target = folder / f"probekit-{name.replace('_', '-')}"
    if target.name == distribution.NAME or importlib.util.find_spec(f"probekit_{name}") is not None:
        raise InputError(f"there is a package {target.name} already", "take another name")
    spellings = {
        f"probekit-{stand_in}": target.name,
        stand_in: name,
        stand_in.title(): name.title().replace("_", ""),
    }
    try:
        target.mkdir(parents=True)
        for source in sorted(path for path in (_TEMPLATES / word).rglob("*") if _is_ours(path)):
            path = target / str(source.relative_to(_TEMPLATES / word)).replace(stand_in, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            for spelling, wanted in spellings.items():
                text = text.replace(spelling, wanted)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{printable(str(error.filename))}: cannot be written: {error.strerror}") from None
    return target


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _is_ours(path: Path) -> bool:
    """Not a cache of Python or of a linter that was run in a checkout."""
    return path.is_file() and not any(
        part.startswith((".", "__pycache__")) for part in path.relative_to(_TEMPLATES).parts
    )
