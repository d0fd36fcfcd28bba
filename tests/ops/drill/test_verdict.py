"""The verdict: each promise is a line, one broken line fails the drill, doubt is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from opslib.core.sections import DrillSection
from opslib.ops.drill.analysis import Findings
from opslib.ops.drill.record import Injection, Memory
from opslib.ops.drill.verdict import check_p99, decide, list_checks, sum_up
from tests.ops.drill.makers import make_event, make_window

LIMITS = DrillSection()
GOOD = Findings(
    calms=(),
    events=(make_event("swap"), make_event("rollback", 4.0), make_event("kill -9", 8.0)),
    windows=(
        make_window("baseline", 4.0),
        make_window("A/A", 4.2),
        make_window("swaps and rollbacks", 5.0),
    ),
    failed=0,
    failed_in_kill=70,
    first_failures=(),
    mixed={},
    longest_stall_ms=40.0,
    recovery_s=2.0,
    sent_late_p99_ms=0.2,
)
KEPT = Injection(injected="text", promised="refused", seen="422", held=True)


def judge(found: Findings = GOOD, *injections: Injection, memory: tuple[Memory, ...] = ()) -> Any:
    given = injections or (KEPT,)
    checks = list_checks(found, given, memory, LIMITS)
    return *decide(checks, given), sum_up(checks, found, 2000)


def test_a_drill_that_nobody_noticed_passes() -> None:
    verdict, code, finding = judge()
    assert (verdict, code) == ("pass", 0)
    assert finding.startswith("1 swap and 1 rollback under load: 0 of 1,930 requests failed")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"failed": 1, "first_failures": ("503 at 1.2 s: no model",)}, "503 at 1.2 s"),
        ({"mixed": {3: "the prediction is another model's"}}, "another model's"),
        ({"longest_stall_ms": 1200.0}, "longest stall: 1200 ms"),
        ({"recovery_s": None}, "no answer any more"),
        ({"recovery_s": 61.0}, "recovery from kill -9: 61.00 s"),
        ({"events": (make_event("swap", end_s=70, first_answer_s=70),)}, "69.00 s at worst"),
        ({"events": (make_event("swap", first_answer_s=None, status=422),)}, "answered 422"),
        ({"events": (make_event("rollback", first_answer_s=2.5),)}, "1.50 s at worst"),
    ],
)
def test_one_broken_promise_fails_the_drill_and_is_named(
    change: dict[str, Any], named: str
) -> None:
    verdict, code, finding = judge(replace(GOOD, **change))
    assert (verdict, code) == ("fail", 3)
    assert finding.startswith("Not kept: ")
    assert named in finding


def test_a_restless_host_excuses_no_slow_swap() -> None:
    baseline, twin = make_window("baseline", 2.5), make_window("A/A", 2.6)
    twin = twin.model_copy(update={"p99_ci95_ms": (2.4, 40.0)})
    check = check_p99(baseline, twin, make_window("swaps and rollbacks", 30.0), LIMITS)
    assert check.result == "inconclusive"


def test_a_pass_whose_interval_reaches_above_the_limit_is_told_with_that() -> None:
    windows = (*GOOD.windows[:2], make_window("swaps and rollbacks", 5.9))
    verdict, _, finding = judge(replace(GOOD, windows=windows))
    assert verdict == "pass"
    assert finding.endswith("its interval ends at 6.49 ms, allowed are 6.00.")


def test_a_restless_second_window_hides_no_interval_above_the_limit() -> None:
    twin = make_window("A/A", 2.6, p99_ci95_ms=(2.4, 40.0))
    swaps = make_window("swaps and rollbacks", 3.7)
    check = check_p99(make_window("baseline", 2.5), twin, swaps, LIMITS)
    assert (check.result, check.reason) == (
        "pass",
        "its interval ends at 4.07 ms, allowed are 3.75",
    )


def test_an_accepted_bad_model_fails_the_drill() -> None:
    bad = KEPT.model_copy(update={"seen": "200: accepted", "held": False})
    verdict, code, finding = judge(GOOD, KEPT, bad)
    assert (verdict, code) == ("fail", 3)
    assert "1 of 2" in finding
    assert "text: 200: accepted" in finding


def test_what_could_not_be_tried_ends_a_good_drill_with_9() -> None:
    untried = KEPT.model_copy(update={"held": None, "seen": "not tried: no card"})
    assert judge(GOOD, KEPT, untried)[:2] == ("pass", 9)


@pytest.mark.parametrize(
    ("baseline", "twin", "swaps", "result", "said"),
    [
        (4.0, 4.2, 5.4, "pass", None),  # its interval too is below
        (4.0, 4.2, 6.0, "pass", "its interval ends at 6.60 ms, allowed are 6.00"),  # at the limit
        (4.0, 6.5, 7.0, "pass", "A/A window's interval"),  # noise reaches as high
        (4.0, 6.5, 7.0, "pass", "; its interval ends at 7.70 ms, allowed are 7.15"),
        (4.0, 4.2, 6.3, "inconclusive", "its interval begins"),  # 5.67 to 6.93
        (4.0, 8.0, 20.0, "inconclusive", "differ by 2.0 ×"),  # nothing happening differs as much
        (
            9.0,
            4.0,
            10.0,
            "pass",
            "differ by 2.2 ×",
        ),  # kept to the letter, and said what it is worth
        (4.0, 4.2, 9.0, "fail", None),
        (None, 4.2, 4.2, "inconclusive", "too few requests in: baseline"),
        (4.0, 4.2, None, "inconclusive", "too few requests in: swap"),
    ],
)
def test_the_p99_is_held_to_the_baseline_and_to_the_noise(
    baseline: float | None, twin: float, swaps: float | None, result: str, said: str | None
) -> None:
    check = check_p99(
        make_window("baseline", baseline),
        make_window("A/A", twin),
        make_window("swaps and rollbacks", swaps),
        LIMITS,
    )
    assert check.result == result
    assert said in (check.reason or "") if said else check.reason is None


def test_a_doubt_is_no_failure_and_no_pass() -> None:
    doubtful = replace(GOOD, windows=(make_window("baseline", None), *GOOD.windows[1:]))
    verdict, code, finding = judge(doubtful)
    assert (verdict, code) == ("inconclusive", 4)
    assert finding.startswith("Not decided: ")


def remember(*sizes: int) -> tuple[Memory, ...]:
    return tuple(
        Memory(during="leak", swap=number, rss_bytes=size)
        for number, size in enumerate(sizes, start=1)
    )


def test_memory_that_grows_from_the_tenth_switch_on_fails_the_drill() -> None:
    flat = remember(*[50] * 4, *[100] * 196)  # warming up does not count
    leaking = remember(*(1000 + number for number in range(200)))
    assert judge(memory=flat)[0] == "pass"
    verdict, _, finding = judge(memory=leaking)
    assert verdict == "fail"
    assert "memory, from the 10th switch to the last: +18.3 %" in finding


def test_a_single_reading_that_jumps_is_no_leak() -> None:
    jumpy = remember(*[100] * 199, 150)
    assert judge(memory=jumpy)[0] == "pass"


def test_few_switches_say_nothing_about_leaks() -> None:
    checks = list_checks(GOOD, (KEPT,), remember(*[100] * 19), LIMITS)
    assert not [one for one in checks if one.name.startswith("memory")]
