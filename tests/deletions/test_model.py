"""Whatever happens in whatever order: nothing needed is deleted, and all can be finished."""

from tests.deletions.machine import run_sequences, tally
from tests.turns import looped, turns

SEQUENCES = turns(5, 50)


@looped
def test_sequences_with_deaths_full_disks_and_wrong_clocks() -> None:
    before = tally.copy()
    run_sequences(SEQUENCES, steps=10)
    assert tally["sequences"] - before["sequences"] >= SEQUENCES
    assert tally["deaths"] - before["deaths"] > turns(0, 10)
