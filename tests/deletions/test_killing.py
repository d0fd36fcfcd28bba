"""Deleting jobs of real processes, killed beside a real service that shares their models."""

from pathlib import Path

from tests.deletions.killing import kill_beside_service
from tests.turns import looped, turns

KILLS = turns(1, 3)


@looped
def test_killed_at_random_moments_nothing_needed_goes_and_a_rerun_finishes(tmp_path: Path) -> None:
    found = kill_beside_service(tmp_path, kills=KILLS, seed=5)
    assert found.kills == KILLS
    assert not found.wrong, found.wrong
