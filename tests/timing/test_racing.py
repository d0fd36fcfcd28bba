"""Racing on made-up arms: the fast stay, the slow leave, nothing is crowned on noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from opslib.ops.sweep.finals import (
    is_settled,
    judge_tie,
    rank,
    run_finals,
    speedup_interval,
)
from opslib.timing.racing import Race, RaceRules, run_race, runs_for
from opslib.timing.rounds import Deadline, Visit, VisitTimes
from opslib.timing.stats import Interval, student_interval

pytestmark = pytest.mark.alone


def arm(ms: float, noise: float = 0.0, seed: int = 0, counter: list[int] | None = None) -> Visit:
    """An arm that takes `ms` with lognormal noise, without waiting."""
    rng = np.random.default_rng(seed)

    def visit(runs: int) -> VisitTimes:
        if counter is not None:
            counter.append(runs)
        times = ms * np.exp(noise * rng.normal(size=runs))
        return VisitTimes(tuple(times.tolist()), float(times.sum()) / 1000, 0.0)

    return visit


def start(
    *visits: Visit,
    incumbent: int = 0,
    rules: RaceRules | None = None,
    on_round: Callable[[Race], None] = lambda _race: None,
) -> Race:
    return run_race(
        visits,
        incumbent=incumbent,
        deadline=Deadline(None),
        rng=np.random.default_rng(0),
        rules=rules,
        on_round=on_round,
    )


def test_the_fastest_survives_and_the_clearly_slower_leave_early() -> None:
    race = start(*(arm(ms, 0.01, seed) for seed, ms in enumerate((10, 8, 12, 20, 30, 8.05))))
    assert race.alive[0] in (1, 5)
    assert [racer.pruned_at for racer in race.racers][3:5] == [2, 2]
    assert race.racers[2].pruned_at is not None


def test_the_incumbent_stays_however_slow_it_is() -> None:
    race = start(arm(50), arm(10), arm(11), arm(12), arm(13), arm(14))
    assert race.racers[0].pruned_at is None
    assert len(race.racers[0].times_ms) == race.rounds


def test_the_hopeless_do_not_start() -> None:
    visits: list[int] = []
    race = start(arm(1), arm(100, counter=visits), arm(1.1), arm(0.9))
    assert race.racers[1].pruned_at == 1
    assert len(visits) == 2
    assert race.log_ratios(0, 1)[0] == pytest.approx(math.log(1 / 100))


def test_one_bad_round_throws_nobody_out() -> None:
    bad_first = [3.0, *[1.0] * 50]

    def stumbling(runs: int) -> VisitTimes:
        factor = bad_first.pop(0) if len(warm) > 1 else 1.0
        warm.append(1)
        return VisitTimes((8 * factor,) * runs, 0.01, 0.0)

    warm: list[int] = []
    others = [arm(ms, 0.005, seed) for seed, ms in enumerate((10, 10.1, 10.2, 10.3))]
    race = start(*others, stumbling, rules=RaceRules(enough=1))
    assert race.racers[4].pruned_at is None
    assert race.alive[0] == 4


def test_equals_are_not_separated_by_noise() -> None:
    pruned = 0
    for seed in range(20):
        race = start(*(arm(5, 0.03, 10 * seed + one) for one in range(6)))
        pruned += sum(not racer.racing for racer in race.racers)
    assert pruned <= 10


def test_who_left_is_not_visited_again_and_every_round_is_told() -> None:
    visits: list[int] = []
    seen: list[int] = []
    race = start(
        arm(10),
        arm(40, counter=visits),
        arm(10.1),
        arm(9.9),
        rules=RaceRules(enough=2),
        on_round=lambda race: seen.append(race.rounds),
    )
    assert race.racers[1].pruned_at == 2
    assert len(visits) == 2 + 2
    assert seen == list(range(1, race.rounds + 1))


def test_a_race_ends_when_few_are_left_or_all_are_tied() -> None:
    few = start(arm(10), arm(9), arm(40), arm(40), arm(40))
    assert few.rounds == RaceRules().min_rounds
    tied = start(*(arm(10, 0.0001, seed) for seed in range(7)))
    assert tied.rounds == RaceRules().min_rounds


def test_without_time_one_round_is_run_all_the_same() -> None:
    race = run_race(
        [arm(10), arm(9)],
        incumbent=0,
        deadline=Deadline(0),
        rng=np.random.default_rng(0),
    )
    assert race.rounds == 1


def test_the_race_interval_is_student_and_one_pair_says_nothing() -> None:
    assert student_interval([0.1], 0.99) == Interval(-math.inf, math.inf)
    interval = student_interval([1.0, 2.0, 3.0, 4.0], 0.99)
    # t(0.995, 3) = 5.8409, standard error 1.29099 / 2
    assert interval.high == pytest.approx(2.5 + 5.8409 * 1.2909944 / 2, abs=1e-3)


def test_slow_models_get_fewer_runs_a_visit() -> None:
    assert [runs_for(ms) for ms in (0.5, 5, 50, 500)] == [10, 5, 3, 1]


def test_a_tie_is_proven_by_the_margin_and_not_by_ignorance() -> None:
    assert judge_tie(Interval(-0.015, -0.005), 2) == "tied"
    assert judge_tie(Interval(-0.02, 0.03), 2) == "tied"
    assert judge_tie(Interval(-0.08, -0.03), 2) == "slower"
    assert judge_tie(Interval(-0.2, 0.1), 2) == "unclear"


def test_finalists_are_ranked_with_their_ties() -> None:
    rng = np.random.default_rng(1)
    noise = np.exp(0.005 * rng.normal(size=(20, 4)))
    rows = (np.array([10.0, 8.0, 8.02, 9.0]) * noise).tolist()
    standing = rank(rows, 2.0)
    assert standing.best in (1, 2)
    assert standing.tied == (1, 2)
    assert standing.unclear == ()
    assert is_settled(rows, 2.0)


def test_few_rounds_decide_nothing() -> None:
    rows = [[10.0, 5.0]] * 3
    assert rank(rows, 2.0).unclear == (0,)
    assert not is_settled(rows, 2.0)


def test_finals_go_on_until_they_are_settled() -> None:
    def rounds(noise: float, **options: int) -> int:
        visits = [arm(10, noise, 1), arm(10, noise, 2)]
        finals = run_finals(
            visits,
            deadline=Deadline(None),
            rng=np.random.default_rng(0),
            margin_pct=2.0,
            **options,
        )
        return len(finals.medians_ms)

    assert rounds(0.001) == 10
    assert rounds(0.3) > 10
    assert rounds(0.001, rounds=17) == 17


def test_a_gain_carries_the_interval_that_its_rounds_support() -> None:
    assert speedup_interval([2.0], [1.0]) == (2.0, None)
    assert speedup_interval([2.0, 2.2, 2.1], [1.0, 1.1, 1.0])[1] is None
    speedup, interval = speedup_interval([2.0, 2.2, 2.1, 2.1], [1.0, 1.1, 1.0, 1.1])
    assert speedup == pytest.approx(2.0, abs=0.1)
    assert interval is not None
    assert interval[0] < 2.0 < interval[1]
