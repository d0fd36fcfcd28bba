"""docs/PROMISES.md: what is said to hold a promise exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "PROMISES.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]


@pytest.mark.parametrize(
    "row", [one for one in ROWS if "situation" not in one], ids=lambda row: row[:40]
)
def test_a_promise_names_what_holds_it(row: str) -> None:
    places = re.findall(r"`((?:tests|benchmarks)/[^` ]+)", row)
    assert places or "what | measured" in row
    for place in places:
        assert (ROOT / place).exists(), place
