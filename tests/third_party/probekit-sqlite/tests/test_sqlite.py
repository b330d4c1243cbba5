"""What the exporter writes can be asked in SQL."""

import sqlite3
from pathlib import Path

from probekit.testing import assert_plugin_contract, exported, sample


def test_contract(tmp_path: Path) -> None:
    assert_plugin_contract("exporter", "sqlite")


def test_figures_of_every_snapshot_are_in_the_database(tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    exported("sqlite", sample(final=False), sample(), sample("another"), path=str(path))
    with sqlite3.connect(path) as database:
        ask = "SELECT probe, final, value FROM figures WHERE name = 'things' AND key = 'a' AND figure = 'events'"
        assert list(database.execute(ask)) == [("sample", 0, 3), ("sample", 1, 3), ("another", 1, 3)]
        assert database.execute("SELECT value FROM figures WHERE figure = 'p99.9'").fetchone() == (2.0,)
        assert database.execute("SELECT value FROM figures WHERE key = 'by_kind'").fetchone() == (3,)
    assert path.stat().st_mode & 0o777 == 0o600
