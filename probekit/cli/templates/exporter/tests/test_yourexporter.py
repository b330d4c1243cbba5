"""What an exporter makes of a made-up snapshot."""

from pathlib import Path

import pytest
from probekit.testing import assert_plugin_contract, exported, sample


def test_contract() -> None:
    assert_plugin_contract("exporter", "yourexporter")


def test_a_page_has_every_row(tmp_path: Path) -> None:
    exported("yourexporter", sample(), path=str(tmp_path / "{probe}.md"))
    page = (tmp_path / "sample.md").read_text()
    assert page.startswith(
        "# sample\n\n## things\n\n| name | events | avg_us |\n| --- | --- | --- |\n| a | 3 | 1.5 |\n"
    )
    assert page.endswith("Lost: nothing.\n")
    assert (tmp_path / "sample.md").stat().st_mode & 0o777 == 0o600


def test_standard_output_gets_the_last_snapshot_only(capsys: pytest.CaptureFixture[str]) -> None:
    exported("yourexporter", sample(final=False))
    assert capsys.readouterr().out == ""
    exported("yourexporter", sample())
    assert capsys.readouterr().out.startswith("# sample\n")
