from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """docs/classes.py, which is no package's."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("classes")


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = []
    for target, _, section in re.findall(r"\]\((?!https://)([^)#]*)(#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        if not there.exists() or (section and section not in _anchors(there)):
            missing.append(f"{target}#{section}")
    assert missing == []


def _anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_attribute_of_every_public_class_is_documented(classes: Any) -> None:
    kinds = [kind for _, kind in classes.public(importlib.import_module("generate").public_modules())]
    assert len(kinds) > 20
    assert {kind.__name__: classes.undocumented(kind) for kind in kinds if classes.undocumented(kind)} == {}


def test_an_attribute_without_a_word_is_found_and_a_word_without_an_attribute(classes: Any) -> None:
    @frozen
    class Half:
        """A class.

        Attributes:
            told: Of this one.
            gone: Of one that is no more.
        """

        told: int
        untold: int

        def silent(self) -> None:
            pass

    assert classes.undocumented(Half) == ["untold", "silent", "gone"]
