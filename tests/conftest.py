from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import documents

pytest_plugins = ["tests.vm.plugin"]


@pytest.fixture(autouse=True)
def documents_are_as_the_schema_says(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test has exported is what docs/schema promises."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        documents.check_folder(folder)
