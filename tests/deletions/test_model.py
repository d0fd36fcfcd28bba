"""Whatever happens in whatever order: nothing needed is deleted, and all can be finished."""

from tests.deletions.machine import run_sequences, tally


def test_fifty_sequences_with_deaths_full_disks_and_wrong_clocks() -> None:
    before = tally.copy()
    run_sequences(50, steps=10)
    assert tally["sequences"] - before["sequences"] >= 50
    assert tally["deaths"] - before["deaths"] > 10
