"""H-1: when a log is rotated, what its archive is called, which go; by the shared table."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.core.upkeep_sections import RotateSection
from opslib.upkeep.rotation_rules import (
    MEBIBYTE,
    find_due,
    find_surplus,
    name_archive,
)

TABLE = json.loads((Path(__file__).parents[1] / "cases" / "rotation.json").read_text())
LOG = TABLE["log"]
POLICY = TABLE["policy"]
LIMITS = RotateSection(
    max_mb=POLICY["max_bytes"] / MEBIBYTE, max_days=POLICY["max_days"], keep=POLICY["keep"]
)


@pytest.mark.parametrize("case", TABLE["due"], ids=lambda case: case["name"])
def test_a_log_is_due_as_the_table_says(case: dict[str, Any]) -> None:
    assert find_due(case["size_bytes"], case["age_days"], LIMITS) == case["due"]


@pytest.mark.parametrize("case", TABLE["names"], ids=lambda case: case["name"])
def test_an_archive_is_called_as_the_table_says(case: dict[str, Any]) -> None:
    assert name_archive(LOG, case["day"], case["taken"]) == case["name"]


@pytest.mark.parametrize("case", TABLE["surplus"], ids=lambda case: case["name"])
def test_archives_go_as_the_table_says(case: dict[str, Any]) -> None:
    assert find_surplus(LOG, case["names"], case["keep"]) == case["delete"]


def test_the_table_has_the_policy_of_the_defaults() -> None:
    assert RotateSection() == LIMITS


@given(
    days=st.lists(st.sampled_from(["20261124", "20261125", "20261126"]), max_size=30),
    keep=st.integers(1, 12),
)
def test_names_never_collide_and_the_newest_are_kept(days: list[str], keep: int) -> None:
    made: list[str] = []
    for day in sorted(days):
        name = name_archive(LOG, day, made)
        assert name not in made
        made.append(name)
        surplus = find_surplus(LOG, reversed(made), keep)
        assert surplus == made[: max(len(made) - keep, 0)]
        made = [one for one in made if one not in surplus]
        assert name in made
