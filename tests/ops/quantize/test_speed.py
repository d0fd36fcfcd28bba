"""Comparing variants: an undisturbed answer stands, a disturbed one gets one more turn."""

from collections.abc import Callable

import pytest

from opslib.core.errors import OpsError
from opslib.ops.quantize.speed import compare_pairs
from opslib.timing.paired import Comparison

PAIR = ("static", 1)


def answer(verdict: str, run_delay_pct: float | None) -> Comparison:
    return Comparison.model_validate(
        {
            "baseline": "float32",
            "candidate": "static",
            "speedup": 1.0,
            "speedup_ci95": (0.9, 1.1),
            "half_width_pct": 10.0,
            "min_effect_pct": 2.0,
            "verdict": verdict,
            "reason": "",
            "rounds": 20,
            "runs_per_round": 5,
            "run_delay_pct": run_delay_pct,
            "attempts": 1,
            "confirmed_in_fresh_processes": None,
            "log_ratios": (0.0,),
            "baseline_p50_ms": 1.0,
            "candidate_p50_ms": 1.0,
            "wall_s": 1.0,
        }
    )


def play(
    *answers: Comparison | OpsError, has_time: Callable[[], bool] = lambda: True
) -> tuple[Comparison | None, str | None, list[int]]:
    """Compare one pair that answers so, turn by turn."""
    turns: list[int] = []

    def compare(_pair: tuple[str, int], turn: int) -> Comparison:
        turns.append(turn)
        one = answers[turn]
        if isinstance(one, OpsError):
            raise one
        return one

    compared, problems = compare_pairs([PAIR], compare, has_time, lambda _what: None)
    return compared.get(PAIR), problems.get(PAIR), turns


@pytest.mark.parametrize("run_delay_pct", [None, 0.0, 20.0])
def test_an_undecided_answer_of_a_quiet_host_stands(run_delay_pct: float | None) -> None:
    first = answer("inconclusive", run_delay_pct)
    assert play(first) == (first, None, [0])


def test_a_disturbed_answer_gets_one_more_turn_and_no_third() -> None:
    first, second = answer("inconclusive", 30.0), answer("inconclusive", 40.0)
    assert play(first, second) == (second, None, [0, 1])


def test_without_time_a_disturbed_answer_stands() -> None:
    first = answer("inconclusive", 30.0)
    assert play(first, has_time=lambda: False) == (first, None, [0])


def test_a_failing_second_turn_keeps_the_first_answer() -> None:
    first = answer("inconclusive", 30.0)
    assert play(first, OpsError("the worker died")) == (first, None, [0, 1])


def test_a_failing_first_turn_is_the_reason() -> None:
    assert play(OpsError("the worker died")) == (None, "the worker died", [0])
