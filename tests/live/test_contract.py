"""The plugins that come with probekit keep the contract that others are held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.plugins import WORDS, discover
from probekit.plugins.distribution import NAME
from probekit.testing import assert_plugin_contract

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"
BUILT_IN = [(WORDS[info.group], info.name) for info in discover().describe() if info.distribution == NAME]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_a_built_in_plugin_keeps_the_contract(kind: str, name: str) -> None:
    assert_plugin_contract(kind, name, readme=CONFIGURATION)
