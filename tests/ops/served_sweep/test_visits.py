"""A visit of a service of known capacity gives that capacity, wherever it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from opslib.ops.served_sweep.answers import AnswerError, Reference, check_failures
from opslib.ops.served_sweep.record import Goal
from opslib.ops.served_sweep.visits import FEWEST_REQUESTS, Loader, Visits
from opslib.serving.load import LoadPlan, LoadResult, Sample
from opslib.serving.staging import RunningService
from opslib.timing.station import RacerError
from tests.serving.known import serve

NOTHING = Reference(np.zeros((0, 3), np.float32), "float32", 1.0)
THROUGHPUT = Goal(objective="throughput", p99_limit_ms=100.0)
Play = Callable[[LoadPlan], list[Sample]]


class PlayedLoader:
    """Sends loads to a service that is played; keeps the plans."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.plans: list[LoadPlan] = []

    def send(self, service: RunningService, **plan: Any) -> LoadResult:
        whole = LoadPlan(url=service.url, images=(Path("a.jpg"),), **plan)
        self.plans.append(whole)
        return LoadResult(
            plan=whole,
            started_unix_s=0,
            started_clock_s=0,
            wall_s=1,
            samples=tuple(self.play(whole)),
        )


def make_visits(play: Play, *, expected: float, goal: Goal = THROUGHPUT) -> Visits:
    service = RunningService("http://127.0.0.1:1", 1, "key", Path("output"))
    loader = cast(Loader, PlayedLoader(play))
    return Visits(7, service, loader, goal, NOTHING, expected, places=66, fresh=False)


def of_capacity(capacity: float, **more: Any) -> Play:
    return lambda plan: serve(plan, capacity, limit_ms=plan.limit_ms or 1e9, **more)


@pytest.mark.parametrize("expected", [90, 500, 900, 3000])
@pytest.mark.parametrize("more", [{}, {"workers": 2, "places": 64}, {"batch": 8, "places": 64}])
def test_the_figure_is_the_capacity_whatever_was_expected(
    expected: float, more: dict[str, int]
) -> None:
    visits = make_visits(of_capacity(900, **more), expected=expected)
    visits(1)
    figures = [1000 / visits(1).times_ms[0] for _ in range(3)]
    assert figures == pytest.approx([900] * 3, rel=0.04)


def test_the_first_visit_is_the_burst_that_was_sent_already() -> None:
    visits = make_visits(of_capacity(900), expected=500)
    visits.fresh = True
    assert visits(1).times_ms == (2.0,)
    assert not visits.loader.plans  # type: ignore[attr-defined]
    assert visits(1).times_ms[0] == pytest.approx(1000 / 900, rel=0.01)


def test_one_disturbed_load_moves_where_the_next_one_begins_only_halfway() -> None:
    visits = make_visits(of_capacity(900), expected=900)
    visits.loader.play = of_capacity(400)  # type: ignore[attr-defined]
    visits(1)
    assert visits.expected_per_s == pytest.approx(600, rel=0.05)


def test_a_service_that_is_never_within_the_limit_is_out_with_the_reason() -> None:
    slow = [Sample(due_s=n, latency_ms=120.0, status=200) for n in range(5)]
    visits = make_visits(lambda _plan: slow, expected=60)
    with pytest.raises(RacerError, match="its p99 is over 100 ms at 5 requests a second") as caught:
        visits(1)
    assert caught.value.number == 7


def test_a_full_line_is_no_failure_while_the_rate_grows_and_any_other_answer_is() -> None:
    full = Sample(due_s=0, latency_ms=1, status=503, error='{"detail": "", "code": "queue_full"}')
    none = Sample(due_s=1, latency_ms=1, status=503, error='{"detail": "", "code": "no_model"}')
    check_failures([full], overload=True)
    with pytest.raises(AnswerError, match="1 of 1 request failed, the first one with 503"):
        check_failures([full])
    with pytest.raises(AnswerError, match=r"1 of 2 requests failed.*no_model"):
        check_failures([full, none], overload=True)


def test_at_a_given_rate_the_figure_is_the_p99_of_what_came_after_the_first_requests() -> None:
    def play(plan: LoadPlan) -> list[Sample]:
        early = plan.requests - FEWEST_REQUESTS
        return [
            Sample(due_s=n / 50, latency_ms=500.0 if n < early else n - early, status=200)
            for n in range(plan.requests)
        ]

    visits = make_visits(play, expected=1, goal=Goal(objective="p99", rate_per_s=50.0))
    assert visits(1).times_ms[0] == pytest.approx(98.01)
    (plan,) = visits.loader.plans  # type: ignore[attr-defined]
    assert (plan.rate_per_s, plan.ramp_to_per_s, plan.limit_ms) == (50.0, None, None)


def test_at_a_given_rate_a_request_that_is_turned_away_puts_the_service_out() -> None:
    goal = Goal(objective="p99", rate_per_s=2000.0)
    visits = make_visits(of_capacity(500, places=64), expected=1, goal=goal)
    with pytest.raises(RacerError, match="requests failed, the first one with 503"):
        visits(1)


def answer(image: int, class_id: int, confidence: float) -> Sample:
    return Sample(
        due_s=0,
        latency_ms=1,
        status=200,
        image=image,
        class_ids=(class_id,),
        confidences=(confidence,),
    )


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([answer(0, 0, 0.7), answer(1, 1, 0.602)], "a probability moved by 0.002, 0.001 is"),
        ([answer(0, 0, 0.7), answer(1, 0, 0.3)], "the class differs on 50.0 % of 2 answers"),
        ([answer(0, 3, 0.7)], "there is no class 3"),
        ([answer(0, 0, 0.7).model_copy(update={"confidences": ()})], "a probability moved by nan"),
    ],
)
def test_answers_are_held_against_the_model_as_written(samples: list[Sample], reason: str) -> None:
    written = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]], np.float32)
    reference = Reference(written, "float32", 1.0)
    assert reference.check([answer(0, 0, 0.7004), answer(1, 1, 0.6)]) == pytest.approx(4e-4, 1e-3)
    assert reference.check([answer(5, 2, 0.9)]) == 0.0
    with pytest.raises(AnswerError, match=reason):
        reference.check(samples)
