"""Which requests belong to a swap, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from opslib.ops.drill.analysis import analyse, list_windows, pack_requests, place_events
from opslib.ops.drill.rehearsal import Deed
from opslib.ops.drill.windows import (
    AnswerLog,
    Timings,
    Window,
    describe_window,
    longest_stall_ms,
    quantile_interval,
)
from opslib.serving.load import LoadPlan, LoadResult, Sample
from tests.ops.drill.makers import make_event, make_sample, make_steady


def test_a_swap_window_is_from_the_request_to_two_seconds_after_the_new_models_first_answer() -> (
    None
):
    samples = make_steady(0, 3, 1) + make_steady(3, 8, 2)
    deed = Deed("swap", "b", start=101.0, end=103.1, status=200)
    (event,) = place_events(samples, [deed], zero=100.0, settle_s=2.0, end_s=8.0)
    assert event.start_s == pytest.approx(1.0)
    assert event.first_answer_s == pytest.approx(3.002)
    assert event.window_end_s == pytest.approx(5.1)  # the request was answered last
    assert (event.mark_before, event.mark_after) == ("generation 1", "generation 2")
    windows = list_windows([event], [])
    assert {one.kind for one in windows} == {"swaps and rollbacks", "swaps"}
    timings = Timings.of(samples)
    inside = timings.due_s[timings.within([windows[0]])]
    assert inside.min() >= 1.0
    assert inside.max() < 5.1


def test_a_request_belongs_to_the_window_in_which_it_was_due_however_late_it_was_sent() -> None:
    late = make_sample(0.9, latency_ms=5000)
    timings = Timings.of([late])
    assert timings.within([Window("swaps", 0.0, 1.0)]).all()
    assert not timings.within([Window("swaps", 1.0, 9.0)]).any()


def test_a_swap_that_is_never_seen_in_an_answer_has_no_first_answer() -> None:
    deed = Deed("swap", "b", start=1.0, end=1.5, status=200)
    (event,) = place_events(make_steady(0, 5), [deed], zero=0.0, settle_s=2.0, end_s=5.0)
    assert event.first_answer_s is None
    assert event.ready_s is None


def test_without_generations_a_model_is_told_by_its_tag() -> None:
    def plain(due: float, tag: str) -> Sample:
        return make_sample(due, None, model_sha256=None, version_tag=tag)

    answers = AnswerLog.of([plain(0.0, "a"), plain(1.0, "a"), plain(2.0, "b")])
    assert answers.mark_before(1.5) == "a"
    found = answers.first_other("a", 0.5, 9.0)
    assert found is not None
    assert found[1] == "b"


def test_failed_requests_are_counted_and_are_no_latencies() -> None:
    samples = [*make_steady(0, 1), make_sample(0.5, status=503, error="busy", latency_ms=9999)]
    stats = describe_window("baseline", [Window("baseline", 0, 1)], Timings.of(samples))
    assert (stats.requests, stats.failed) == (101, 1)
    assert stats.worst_ms == pytest.approx(2.0)


def test_a_p99_needs_enough_requests_to_support_it() -> None:
    window = [Window("baseline", 0, 10)]
    few = describe_window("baseline", window, Timings.of(make_steady(0, 6.6)))
    many = describe_window("baseline", window, Timings.of(make_steady(0, 6.7)))
    assert few.p99_ms is None
    assert many.p99_ms == pytest.approx(2.0)


def test_an_interval_comes_from_whole_seconds_so_that_one_bad_second_widens_it() -> None:
    rng = np.random.default_rng(3)
    calm = [rng.normal(10, 1, 100) for _ in range(10)]
    stormy = [*calm[:-1], calm[-1] + 90]
    narrow, wide = (quantile_interval(blocks, 0.99, 0) for blocks in (calm, stormy))
    assert narrow is not None
    assert wide is not None
    assert narrow[1] - narrow[0] < 3
    assert wide[0] < 15 < 90 < wide[1]
    assert quantile_interval(calm[:1], 0.99, 0) is None


def test_a_stall_is_the_time_in_which_requests_waited_and_none_was_answered() -> None:
    stalled = [
        make_sample(one.due_s, latency_ms=(2.0 - one.due_s) * 1000 + 1)
        if 1.0 <= one.due_s < 2.0
        else one
        for one in make_steady(0, 4)
    ]
    timings = Timings.of(stalled)
    nothing = np.zeros(len(stalled), dtype=np.bool_)
    # The first that waited was due at 1.0 s; the one before it had been answered.
    assert longest_stall_ms(timings, nothing) == pytest.approx(1001, abs=0.1)
    assert longest_stall_ms(Timings.of(make_steady(0, 1)), nothing[:100]) == pytest.approx(2.0)


def test_idle_time_is_no_stall() -> None:
    sparse = [make_sample(0.0), make_sample(30.0)]
    assert longest_stall_ms(Timings.of(sparse), np.zeros(2, dtype=np.bool_)) == pytest.approx(2.0)


def make_load(samples: list[Sample], wall_s: float) -> LoadResult:
    plan = LoadPlan(url="http://127.0.0.1:1", images=(), requests=1, rate_per_s=100.0)
    return LoadResult(
        plan=plan, started_unix_s=0, started_clock_s=50.0, wall_s=wall_s, samples=tuple(samples)
    )


def test_requests_that_a_kill_hit_are_counted_apart_until_the_service_was_back_for_a_while() -> (
    None
):
    down = [make_sample(2 + i / 100, status=0, error="refused", latency_ms=1) for i in range(100)]
    in_flight = make_sample(1.999, status=0, error="closed", latency_ms=5)
    queue_full = make_sample(3.5, status=503, error="full")
    later = make_sample(6.0, status=503, error="not the kill's fault")
    samples = [*make_steady(0, 2), in_flight, *down, queue_full, *make_steady(3, 8, 2), later]
    deed = Deed("kill -9", "SIGKILL", start=52.0, end=52.9, status=200)
    found = analyse(make_load(samples, 8.0), [deed], [("baseline", 50.0, 51.0)], settle_s=2.0)
    assert (found.failed_in_kill, found.failed) == (102, 1)
    assert "not the kill's fault" in found.first_failures[0]
    assert found.recovery_s == pytest.approx(1.002)


def test_a_service_that_never_comes_back_has_no_recovery() -> None:
    down = [make_sample(2 + i / 100, status=0, error="refused", latency_ms=1) for i in range(100)]
    deed = Deed("kill -9", "SIGKILL", start=52.0, end=52.9)
    found = analyse(make_load([*make_steady(0, 2), *down], 3.0), [deed], [], settle_s=2.0)
    assert found.recovery_s is None
    assert found.failed_in_kill == 100


def test_every_request_is_kept_with_the_model_that_answered() -> None:
    samples = [make_sample(0.0, 1), make_sample(0.1, 2), make_sample(0.2, status=0, error="x")]
    raw = pack_requests(samples)
    assert raw.marks == ("generation 1", "generation 2")
    assert raw.mark == (0, 1, -1)
    assert raw.status == (200, 200, 0)


def test_a_bad_models_window_is_no_swap_window() -> None:
    event = make_event("bad model", status=422, window_end_s=1.5)
    assert {one.kind for one in list_windows([event], [])} == {"bad models"}
