import math
import random
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from opslib.core.host import HostFacts
from opslib.ops.bench.compare import (
    RowComparison,
    compare_records,
    noise_floor_pct,
    welch_interval,
)
from opslib.ops.bench.record import BenchRecord, BenchRow, Relative
from opslib.timing.stats import trimmed_degrees
from tests.runs.makers import bench_row, make_bench, make_lineage


def blocks(median: float, spread: float, count: int = 5, seed: int = 0) -> Any:
    rng = random.Random(seed)
    return tuple((median * (1 + rng.gauss(0, spread)),) * 3 for _ in range(count))


def outcomes(old: BenchRecord, new: BenchRecord, **options: Any) -> list[tuple[str, str | None]]:
    return [(row.outcome, row.reason) for row in compare_records(old, new, **options).rows]


def one(old: BenchRow, new: BenchRow) -> tuple[str, str | None]:
    return outcomes(make_bench([old]), make_bench([new]))[0]


def test_a_clearly_slower_row_is_worse_and_a_faster_one_better() -> None:
    assert one(bench_row(2.0), bench_row(2.2)) == ("worse", None)
    assert one(bench_row(2.2), bench_row(2.0)) == ("better", None)


def test_the_ratio_and_its_interval_are_candidate_over_baseline() -> None:
    row = compare_records(make_bench([bench_row(2.0)]), make_bench([bench_row(2.2)])).rows[0]
    assert row.latency_ratio == pytest.approx(1.1)
    assert row.change_pct == pytest.approx(10.0)
    assert row.latency_ratio_ci99 is not None
    low, high = row.latency_ratio_ci99
    assert low < 1.1 < high
    assert (row.baseline_p50_ms, row.candidate_p50_ms) == (2.0, 2.2)


def test_a_change_below_the_minimum_effect_is_none_however_sure_it_is() -> None:
    old, new = bench_row(2.0), bench_row(2.0)
    old = old.model_copy(update={"raw_ms": blocks(2.0, 1e-6)})
    new = new.model_copy(update={"raw_ms": blocks(2.03, 1e-6, seed=1)})
    assert one(old, new) == ("no measurable change", None)


def test_a_large_change_that_the_spread_explains_is_none() -> None:
    old = bench_row(2.0, raw_ms=((1.0,), (3.0,), (1.5,)))
    new = bench_row(2.2, raw_ms=((1.2,), (3.3,), (1.6,)))
    assert one(old, new) == ("no measurable change", None)


def test_the_noise_floor_of_either_record_raises_the_minimum_effect() -> None:
    old, new = make_bench([bench_row(2.0)]), make_bench([bench_row(2.1)])
    assert outcomes(old, new) == [("worse", None)]
    noisy = new.model_copy(update={"noise_floor": floor(0.94, 1.02)})
    assert noise_floor_pct(noisy) == pytest.approx(6.0)
    assert outcomes(old, noisy) == [("no measurable change", None)]
    assert outcomes(noisy, new) == [("no measurable change", None)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lineage": make_lineage("ffffffffffff", "Another")}, "hosts differ"),
        ({"img_size": 32}, "image sizes differ"),
        ({"preprocess": "src.infer:preprocess"}, "preprocessing differs"),
    ],
)
def test_records_of_other_conditions_are_not_comparable(
    changes: dict[str, Any], reason: str
) -> None:
    comparison = compare_records(make_bench(), make_bench().model_copy(update=changes))
    assert not comparison.comparable
    assert str(comparison.reason).startswith(reason)
    assert comparison.summary.startswith(f"not comparable: {reason}")


def test_another_model_is_compared_only_when_that_is_meant() -> None:
    old = make_bench([bench_row(2.0)])
    assert old.model is not None
    other = old.model.model_copy(update={"sha256": "00" * 32})
    new = make_bench([bench_row(2.2)], model=other)
    assert outcomes(old, new) == [("not comparable", "models differ")]
    assert outcomes(old, new, across_models=True) == [("worse", None)]


def test_the_model_of_a_row_is_what_its_engine_runs() -> None:
    rows = [bench_row(2.0), bench_row(4.0, engine="torch")]
    file = make_bench().model
    assert file is not None
    best, newer = (file.model_copy(update={"sha256": digest * 32}) for digest in ("01", "02"))
    old = make_bench(rows, checkpoint=best)
    same, differ = ("no measurable change", None), ("not comparable", "models differ")
    assert outcomes(old, make_bench(rows, checkpoint=newer)) == [same, differ]
    assert outcomes(old, make_bench(rows, model=newer, checkpoint=best)) == [differ, same]
    assert outcomes(old, make_bench(rows, checkpoint=newer), across_models=True) == [same, same]


def related(log_ratio: float, own: float, rounds: int) -> BenchRow:
    """A row whose ratio has this standard error, from so many rounds."""
    reach = own * float(scipy_stats.t.ppf(0.975, trimmed_degrees(rounds)))
    ends = math.exp(log_ratio - reach), math.exp(log_ratio + reach)
    found = Relative(
        ratio=math.exp(log_ratio),
        ci95=ends,
        half_width_pct=100 * reach,
        reference_ms=1.0,
        log_ratios=(log_ratio,) * rounds,
    )
    return bench_row(2.0, relative=found)


def test_of_few_rounds_a_ratios_error_is_not_well_known() -> None:
    def compare(rounds: int) -> RowComparison:
        old, new = (
            make_bench([related(at, 0.06, rounds)], reference_sha256="ef" * 32)
            for at in (0.0, 0.27)
        )
        return compare_records(old, new).rows[0]

    few, many = compare(5), compare(500)
    assert (few.outcome, many.outcome) == ("no measurable change", "worse")
    assert many.latency_ratio_ci99 == pytest.approx(
        [math.exp(0.27 + sign * 2.5758 * math.sqrt(2 * 0.06**2 + 2 * 0.02**2)) for sign in (-1, 1)],
        rel=0.005,
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "inconclusive"}, "inconclusive in the candidate"),
        ({"status": "unavailable", "raw_ms": ()}, "unavailable in the candidate"),
        ({"raw_ms": ((2.0,),)}, "fewer than 2 blocks in the candidate"),
        ({"threads": 1}, "threads differ (2 and 1)"),
        ({"options": {"allow_spinning": "0"}}, "session options differ"),
    ],
)
def test_rows_that_are_no_sound_measurement_are_not_comparable(
    changes: dict[str, Any], reason: str
) -> None:
    assert one(bench_row(2.0), bench_row(2.0, **changes)) == ("not comparable", reason)


def test_end_to_end_rows_need_the_same_images_and_inference_rows_do_not() -> None:
    rows = [bench_row(2.0), bench_row(9.0, boundary="end_to_end")]
    old = make_bench(rows)
    new = make_bench(rows, inputs=old.inputs.model_copy(update={"sha256": "00" * 32}))
    assert outcomes(old, new) == [
        ("no measurable change", None),
        ("not comparable", "the images differ"),
    ]


def test_rows_of_one_side_only_are_listed() -> None:
    old = make_bench([bench_row(2.0), bench_row(4.0, batch_size=2)])
    new = make_bench([bench_row(2.0), bench_row(8.0, batch_size=4)])
    assert outcomes(old, new) == [
        ("no measurable change", None),
        ("not comparable", "only in the candidate"),
        ("not comparable", "only in the baseline"),
    ]


def test_the_summary_names_the_largest_change_of_each_kind() -> None:
    old = make_bench([bench_row(2.0, batch_size=n) for n in (1, 2, 4, 8)])
    new = make_bench(
        [bench_row(p50, batch_size=n) for n, p50 in ((1, 2.2), (2, 2.6), (4, 1.0), (8, 2.0))]
    )
    assert compare_records(old, new).summary == (
        "2 rows worse (most: onnx on CPU, batch 2, inference 30.0 % slower), "
        "1 row better (most: onnx on CPU, batch 4, inference 50.0 % faster), "
        "1 row without a measurable change"
    )


def test_a_record_kept_with_block_medians_alone_compares_the_same() -> None:
    old, new = make_bench([bench_row(2.0)]), make_bench([bench_row(2.2)])
    row = new.rows[0]
    slim = row.slim()
    assert compare_records(old, new) == compare_records(old, make_bench([slim]))


def test_the_interval_is_scipys_welch_interval() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, 5).tolist(), rng.normal(0.5, 2, 7).tolist()
    expected = scipy_stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.99)
    difference, (low, high) = welch_interval(old, new)
    assert difference == pytest.approx(np.mean(new) - np.mean(old))
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_false_alarms_are_rare_where_nothing_changed() -> None:
    alarms = 0
    for seed in range(400):
        old = bench_row(2.0, raw_ms=blocks(2.0, 0.02, seed=seed))
        new = bench_row(2.0, raw_ms=blocks(2.0, 0.02, seed=10_000 + seed))
        alarms += one(old, new)[0] != "no measurable change"
    assert alarms <= 12


def floor(low: float, high: float) -> Any:
    from opslib.timing.paired import Comparison

    return Comparison(
        baseline="a",
        candidate="a",
        speedup=1.0,
        speedup_ci95=(low, high),
        half_width_pct=1.0,
        min_effect_pct=2.0,
        verdict="no measurable change",
        reason="",
        rounds=3,
        runs_per_round=3,
        run_delay_pct=None,
        attempts=1,
        confirmed_in_fresh_processes=None,
        log_ratios=(0.0,) * 20,
        baseline_p50_ms=1.0,
        candidate_p50_ms=1.0,
        wall_s=1.0,
    )


def test_hosts_of_equal_hardware_and_two_names_are_not_compared_silently() -> None:
    one, other = (make_bench(lineage=make_lineage(name=name)) for name in ("one", "other"))
    assert compare_records(one, other).reason == "hosts differ (one and other, of equal hardware)"
    assert compare_records(one, make_bench()).comparable


def test_the_hosts_are_named_when_they_differ() -> None:
    label = HostFacts.model_validate(make_lineage().host.model_dump()).label
    other = make_lineage("ffffffffffff", "Another Processor")
    reason = compare_records(make_bench(), make_bench(lineage=other)).reason
    assert reason == f"hosts differ ({label} and {other.host.label})"
