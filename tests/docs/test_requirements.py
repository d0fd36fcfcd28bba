"""docs/REQUIREMENTS.md: every requirement and promise is there, and what it names exists."""

import re
from pathlib import Path

import pytest

from tests.docs.commands import read_parts

ROOT = Path(__file__).resolve().parents[2]
HEADS = ("| row |", "| situation |", "| what |")
REQUIRED = ("paths", "demo", "three ways", "service contract", *(f"H-{n}" for n in range(1, 11)))


def read_rows(part: str) -> list[str]:
    lines = read_parts("REQUIREMENTS.md", part).splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith(HEADS)]


ROWS = read_rows("Requirements")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


def test_every_requirement_has_a_row() -> None:
    named = [cells(row)[0] for row in ROWS]
    for wanted in REQUIRED:
        assert any(re.match(rf"{wanted}(?![0-9])", name) for name in named), wanted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: cells(row)[0])
def test_a_requirement_names_its_place_and_its_tests_and_both_exist(row: str) -> None:
    _name, what, built, held = cells(row)
    assert what
    for column in (built, held):
        places = re.findall(r"`([^`]+)`", column)
        assert places
        for place in places:
            path, _, test = place.partition("::")
            assert (ROOT / path).exists(), place
            assert not test or f"def {test}(" in (ROOT / path).read_text(), place
    tests = [ROOT / place for place in re.findall(r"`(tests/[^`:]+)", held)]
    assert all(any(one.rglob("test_*.py")) or one.suffix or one.name == "pester" for one in tests)


@pytest.mark.parametrize("row", read_rows("Promises"), ids=lambda row: row[:40])
def test_a_promise_names_what_holds_it(row: str) -> None:
    places = re.findall(r"\b(?:tests|benchmarks)/[\w./]+", row)
    assert places
    for place in places:
        assert (ROOT / place).exists(), place
