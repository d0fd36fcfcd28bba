"""What the documents tell their readers to type is executed by `make docs-check`."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCUMENTS = Path(__file__).parent
PLACES = {"checkout", "pair", "world"}  # the fixtures in which commands are executed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that execute a document's commands."""
    for item in items:
        own = item.path.parent == DOCUMENTS and isinstance(item, pytest.Function)
        if own and PLACES & set(item.fixturenames):
            item.add_marker("docs_run")
