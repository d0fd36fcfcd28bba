"""docs/PROMISES.md: what is said to hold a promise exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "PROMISES.md").read_text()
HEADS = ("| situation |", "| what |")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(HEADS)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:40])
def test_a_promise_names_what_holds_it(row: str) -> None:
    places = re.findall(r"\b(?:tests|benchmarks)/[\w./]+", row)
    assert places
    for place in places:
        assert (ROOT / place).exists(), place
