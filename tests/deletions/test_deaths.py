"""A deleting job that is killed at any operation is finished by its second run."""

import pytest

from tests.deletions.deaths import die_once, list_deaths
from tests.turns import looped, turns

EACH = turns(100, 40)  # benchmarks/soak_deletions.py takes each


@looped
@pytest.mark.parametrize("shared", [False, True])
def test_a_second_run_finishes_what_a_killed_one_began(shared: bool) -> None:
    deaths = list(list_deaths(shared))
    assert {job for job, _, _ in deaths} == {"maintain", "prune"}
    assert len(deaths) > 100
    for job, number, torn in deaths[::EACH]:
        found = die_once(job, number, torn, shared)
        assert not found, f"{job} killed at operation {number}{' torn' if torn else ''}: {found}"
