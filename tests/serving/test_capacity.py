"""H-7: how many instances a load needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.capacity import instances_needed
from opslib.core.errors import ParameterError

pytestmark = pytest.mark.alone

RATES = st.floats(0.1, 1e5)


@pytest.mark.parametrize(
    ("peak", "capacity", "share", "spare", "count"),
    [(300, 500, 0.6, 1, 2), (301, 500, 0.6, 1, 3), (0, 500, 0.6, 0, 1), (1000, 100, 1.0, 0, 10)],
)
def test_the_count_is_rounded_up_and_the_spare_comes_on_top(
    peak: float, capacity: float, share: float, spare: int, count: int
) -> None:
    assert instances_needed(peak, capacity, share=share, spare=spare) == count


@given(peak=RATES, capacity=RATES, share=st.floats(0.05, 1.0), spare=st.integers(0, 3))
def test_without_the_spare_ones_nobody_carries_more_than_its_share(
    peak: float, capacity: float, share: float, spare: int
) -> None:
    working = instances_needed(peak, capacity, share=share, spare=spare) - spare
    assert peak / working <= share * capacity * (1 + 1e-9)
    assert working == 1 or peak / (working - 1) > share * capacity * (1 - 1e-9)


@pytest.mark.parametrize(
    ("peak", "capacity", "share", "spare"),
    [(-1, 1, 0.5, 0), (1, 0, 0.5, 0), (float("nan"), 1, 0.5, 0), (1, 1, 0, 0), (1, 1, 0.5, -1)],
)
def test_impossible_figures_are_refused(
    peak: float, capacity: float, share: float, spare: int
) -> None:
    with pytest.raises(ParameterError):
        instances_needed(peak, capacity, share=share, spare=spare)
