"""A load whose rate grows: when requests are due, and what a service of known capacity carries."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.serving.load import LoadPlan, LoadResult, Sample, start_load
from opslib.serving.ramp import due_s, find_carried
from tests.serving.conftest import Live
from tests.serving.known import serve

rates = st.floats(min_value=0.5, max_value=5000)
counts = st.integers(min_value=1, max_value=3000)


def plan_ramp(start: float, end: float | None, requests: int) -> LoadPlan:
    return LoadPlan(
        url="http://127.0.0.1:1",
        images=(Path("a.jpg"),),
        requests=requests,
        rate_per_s=start,
        ramp_to_per_s=end,
    )


@given(rates, rates, counts)
def test_the_integral_of_the_rate_up_to_a_request_is_its_number(
    start: float, end: float, requests: int
) -> None:
    plan = plan_ramp(start, end, requests)
    whole_s = 2 * requests / (start + end)
    for index in {0, 1, requests // 2, requests - 1}:
        due = due_s(plan, index)
        sent = start * due + (end - start) * due**2 / (2 * whole_s)
        assert sent == pytest.approx(index, rel=1e-6, abs=1e-6)


@given(rates, rates, counts)
def test_requests_are_due_one_after_the_other_from_the_first_moment_on(
    start: float, end: float, requests: int
) -> None:
    plan = plan_ramp(start, end, requests)
    moments = [due_s(plan, index) for index in range(min(requests, 200))]
    assert moments[0] == 0
    assert all(one < other for one, other in itertools.pairwise(moments))
    assert moments[-1] <= 2 * requests / (start + end)


@given(rates, st.integers(min_value=0, max_value=10_000))
def test_a_ramp_that_does_not_grow_is_the_constant_rate(rate: float, index: int) -> None:
    constant = due_s(plan_ramp(rate, None, 10_001), index)
    assert constant == index / rate
    assert due_s(plan_ramp(rate, rate, 10_001), index) == pytest.approx(constant)


@given(
    capacity=st.floats(min_value=20, max_value=900),
    guess=st.floats(min_value=0.6, max_value=1.5),
    lanes=st.sampled_from([(1, 1), (2, 1), (4, 1), (1, 8), (2, 8)]),
)
def test_what_is_carried_is_the_known_capacity(
    capacity: float, guess: float, lanes: tuple[int, int]
) -> None:
    workers, batch = lanes
    start = 0.75 * guess * capacity
    plan = plan_ramp(start, 4 * start / 0.75, 600)
    samples = serve(plan, capacity, workers=workers, batch=batch, limit_ms=60 * 1000 / capacity)
    carried = find_carried(samples, 60 * 1000 / capacity)
    assert carried.passed_limit
    assert carried.rate_per_s == pytest.approx(capacity, rel=0.12)


def test_a_full_line_ends_what_is_carried_as_a_late_answer_does() -> None:
    plan = plan_ramp(300, 1600, 1500)
    samples = serve(plan, 400, places=64, limit_ms=1e6)
    assert any(one.status == 503 for one in samples)
    carried = find_carried(samples, 1e6)
    assert carried.passed_limit
    assert carried.rate_per_s == pytest.approx(400, rel=0.05)


def test_one_late_answer_of_a_hundred_is_within_the_p99_and_two_are_not() -> None:
    def load(late: set[int]) -> list[Sample]:
        return [
            Sample(due_s=n / 100, latency_ms=90.0 if n in late else 2.0, status=200)
            for n in range(300)
        ]

    assert not find_carried(load({50, 160, 270}), 50).passed_limit
    assert find_carried(load({50, 149}), 50).passed_limit


def test_what_came_after_the_limit_was_passed_does_not_count() -> None:
    calm = [Sample(due_s=n / 100, latency_ms=2.0, status=200) for n in range(200)]
    stall = [Sample(due_s=2 + n / 1000, latency_ms=400.0, status=200) for n in range(20)]
    after = [Sample(due_s=3 + n / 1000, latency_ms=2.0, status=200) for n in range(500)]
    carried = find_carried([*calm, *stall, *after], 50)
    assert carried.rate_per_s == pytest.approx(100, rel=0.02)


def test_without_answers_in_time_nothing_is_said() -> None:
    slow = [Sample(due_s=n / 10, latency_ms=80.0, status=200) for n in range(40)]
    carried = find_carried(slow, 50)
    assert (carried.rate_per_s, carried.passed_limit) == (None, True)


def send(live: Live, **changes: object) -> LoadResult:
    plan = LoadPlan(
        url=live.service.url, images=(live.place.images[0],), requests=60, rate_per_s=100.0
    ).model_copy(update=changes)
    with start_load(plan, live.service.key) as load:
        return load.wait(60)


def test_a_load_that_grows_is_sent_when_it_is_due(live: Live) -> None:
    result = send(live, ramp_to_per_s=300.0)
    assert [one.due_s for one in result.samples] == [due_s(result.plan, n) for n in range(60)]
    assert not result.failures
    assert all(0 < one.confidences[0] <= 1 for one in result.samples)


def test_a_load_ends_by_itself_once_the_limit_is_passed(live: Live) -> None:
    result = send(live, requests=1000, limit_ms=0.001)
    assert 2 <= len(result.samples) < 1000
    assert find_carried(result.samples, 0.001).passed_limit
