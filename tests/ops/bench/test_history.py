"""A benchmark against all before it: on simulated runs whose truth is known."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from opslib.ops.bench.columns import change_columns
from opslib.ops.bench.compare import compare_records
from opslib.ops.bench.history import judge_record
from opslib.ops.bench.record import BenchRecord, BenchRow, Relative
from tests.runs.makers import bench_row, make_bench, make_lineage

BETWEEN, WITHIN = 0.01, 0.008
SIZES = (1, 2, 4, 8)
T_11 = 2.201  # of 95 % at 11 degrees of freedom: 20 rounds without the outer fifths


def relative(log_ratio: float, own: float, reference_ms: float = 1.0) -> Relative:
    return Relative(
        ratio=math.exp(log_ratio),
        ci95=(math.exp(log_ratio - T_11 * own), math.exp(log_ratio + T_11 * own)),
        half_width_pct=100 * own,
        reference_ms=reference_ms,
        log_ratios=(log_ratio,) * 20,
    )


def make_run(
    rng: random.Random,
    *,
    slower: float = 0.0,
    host: float | None = None,
    torch_host: float | None = None,
    **changes: Any,
) -> BenchRecord:
    """A run of both engines: its ratios lie around 2, its milliseconds wherever the host was."""
    speed = rng.gauss(0, 0.1) if host is None else host
    speeds = {"onnx": speed, "torch": speed if torch_host is None else torch_host}
    rows = []
    for engine, size in [(engine, size) for engine in speeds for size in SIZES]:
        level = math.log(2) + slower * (engine == "onnx") + rng.gauss(0, BETWEEN)
        ratio = level + rng.gauss(0, WITHIN)
        reference_ms = size * math.exp(speeds[engine])
        found = relative(ratio, WITHIN, reference_ms)
        p50 = reference_ms * math.exp(ratio)
        rows.append(bench_row(p50, engine=engine, batch_size=size, relative=found))
    checkpoint = make_bench().model
    return make_bench(rows, **{"reference_sha256": "ef" * 32, "checkpoint": checkpoint, **changes})


def history(count: int, seed: int = 0) -> list[BenchRecord]:
    rng = random.Random(seed)
    return [make_run(rng) for _ in range(count)]


def raised(comparison: Any) -> int:
    return int(comparison.count("worse") + comparison.count("better"))


def test_where_nothing_changed_one_run_in_a_hundred_at_most_raises_anything() -> None:
    rng = random.Random(1)
    alarms = [raised(judge_record(make_run(rng), history(20, seed))) for seed in range(150)]
    assert sum(map(bool, alarms)) <= 4  # 1 % of 150, and what chance adds to it in 99 of 100


def test_five_percent_are_found_although_the_milliseconds_differ_by_ten() -> None:
    rng = random.Random(2)
    found = [judge_record(make_run(rng, slower=0.05), history(25, seed)) for seed in range(40)]
    assert sum(one.count("worse") > 0 for one in found) >= 38
    assert not any(one.count("better") for one in found)
    assert "the model itself is" in (found[0].attribution or "")


def with_moment(record: BenchRecord, rng: random.Random, off: float) -> BenchRecord:
    """The record with one row far off, as a host's odd moment leaves it."""
    rows = list(record.rows)
    at = rng.randrange(len(rows))
    found = rows[at].relative
    assert found
    moved = relative(math.log(found.ratio) + rng.choice((-1, 1)) * off, WITHIN)
    rows[at] = rows[at].model_copy(update={"relative": moved})
    return record.model_copy(update={"rows": tuple(rows)})


def test_moments_that_no_model_knows_raise_one_run_in_forty_at_most() -> None:
    rng = random.Random(8)
    runs = [make_run(rng) for _ in range(40)]
    odd = [with_moment(one, rng, 0.12) if at % 8 == 0 else one for at, one in enumerate(runs)]
    judged = [judge_record(one, [*odd[:at], *odd[at + 1 :]]) for at, one in enumerate(odd)]
    assert sum(bool(raised(one)) for one in judged) <= 1
    reasons = {row.reason for one in judged for row in one.rows}
    assert "a run before it stood out as much" in reasons


def test_what_is_stranger_than_an_odd_moment_is_raised_beside_it() -> None:
    rng = random.Random(9)
    earlier = [with_moment(make_run(rng), rng, 0.06), *history(30)]
    assert raised(judge_record(make_run(rng, slower=0.10), earlier))


def test_a_host_that_is_slower_is_not_blamed_on_the_model() -> None:
    rng = random.Random(3)
    comparison = judge_record(make_run(rng, host=0.4), history(30))
    assert raised(comparison) == 0
    told = comparison.attribution or ""
    assert "in both engines: the host, not the model" in told
    assert "slower" in told


def test_a_slower_decoding_is_the_preprocessing_and_not_the_model() -> None:
    def whole(record: BenchRecord, slower: float) -> BenchRecord:
        """The record with each row end to end beside it."""
        rows = []
        for row in record.rows:
            assert row.relative
            both = relative(math.log(row.relative.ratio) + slower, WITHIN)
            rows.append(row.model_copy(update={"boundary": "end_to_end", "relative": both}))
        return record.model_copy(update={"rows": (*record.rows, *rows)})

    comparison = judge_record(whole(history(1, 5)[0], 0.14), [whole(one, 0) for one in history(30)])
    assert {row.boundary for row in comparison.rows if row.outcome == "worse"} == {"end_to_end"}
    told = comparison.attribution or ""
    assert "ONNX Runtime: end to end is 1" in told
    assert "the preprocessing" in told
    assert "the model itself" not in told


def test_the_interval_shown_is_named_by_its_confidence() -> None:
    comparison = judge_record(history(1, 9)[0], history(10))
    assert comparison.confidence == 1 - 0.01 / len(comparison.rows)
    names = [column.name for column in change_columns(comparison)]
    assert "99.9 % interval" in names
    plain = compare_records(make_bench(), make_bench())
    assert "99 % interval" in [column.name for column in change_columns(plain)]


def test_an_engine_that_is_slower_alone_is_the_runtime() -> None:
    rng = random.Random(4)
    comparison = judge_record(make_run(rng, host=0.5, torch_host=0.0), history(30))
    assert raised(comparison) == 0
    assert "in ONNX Runtime alone: the runtime or its settings" in (comparison.attribution or "")


def test_few_runs_mean_wide_limits_and_fewer_than_three_none() -> None:
    few, many = (judge_record(history(1, 9)[0], history(count)) for count in (3, 40))
    wide, narrow = few.rows[0].latency_ratio_ci99, many.rows[0].latency_ratio_ci99
    assert wide
    assert narrow
    assert math.log(wide[1] / wide[0]) > 5 * math.log(narrow[1] / narrow[0])
    assert many.summary.startswith("held against 40 runs: ")
    none = judge_record(history(1, 9)[0], history(2))
    assert not none.comparable
    assert none.reason == "2 comparable runs before it, 3 are needed"


def test_the_order_of_rows_and_of_runs_is_irrelevant() -> None:
    new, earlier = history(1, 5)[0], history(12)
    turned = new.model_copy(update={"rows": new.rows[::-1]})
    one = {row.label: row for row in judge_record(new, earlier).rows}
    other = {row.label: row for row in judge_record(turned, earlier[::-1]).rows}
    assert one.keys() == other.keys()
    for label, row in one.items():
        assert row.outcome == other[label].outcome
        assert row.latency_ratio == pytest.approx(other[label].latency_ratio, rel=1e-9)


def test_a_host_twice_as_fast_gives_the_same_answer() -> None:
    def scaled(record: BenchRecord) -> BenchRecord:
        def halve(row: BenchRow) -> BenchRow:
            found = row.relative
            assert found
            half = found.model_copy(update={"reference_ms": found.reference_ms / 2})
            return row.model_copy(update={"relative": half})

        return record.model_copy(update={"rows": tuple(map(halve, record.rows))})

    new, earlier = history(1, 6)[0], history(15)
    plain = judge_record(new, earlier)
    assert judge_record(scaled(new), [scaled(one) for one in earlier]) == plain


def changed(record: BenchRecord, **rows: Any) -> BenchRecord:
    found = tuple(row.model_copy(update=rows) for row in record.rows)
    return record.model_copy(update={"rows": found})


def test_other_options_are_told_as_what_they_are() -> None:
    earlier = [changed(one, options={"allow_spinning": "0"}) for one in history(10)]
    comparison = judge_record(history(1, 7)[0], earlier)
    assert comparison.comparable
    assert comparison.changed == {"options": "allow_spinning=0 → none"}
    assert comparison.notes == ("changed since then: options, allow_spinning=0 → none",)


def test_runs_of_the_same_conditions_are_preferred_once_there_are_three() -> None:
    before = [changed(one, threads=1) for one in history(10)]
    comparison = judge_record(history(1, 7)[0], [*history(3, 8), *before])
    assert comparison.changed == {}
    assert comparison.runs == 3


def test_another_model_is_no_regression_and_is_not_compared_unasked() -> None:
    model = make_bench().model
    assert model
    other = model.model_copy(update={"sha256": "00" * 32})
    new = make_run(random.Random(1), slower=0.5, model=other)
    comparison = judge_record(new, history(10))
    onnx = [row for row in comparison.rows if row.engine == "onnx"]
    assert {row.outcome for row in onnx} == {"not comparable"}
    assert str(onnx[0].reason).startswith("models differ (abababababab → 000000000000)")
    asked = judge_record(new, history(10), across_models=True)
    assert asked.of_another_model
    assert asked.count("worse") > 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lineage": make_lineage("ffffffffffff")}, "hosts differ"),
        ({"reference_sha256": "00" * 32}, "no run before it was held against the same reference"),
        ({"img_size": 32}, "image sizes differ"),
    ],
)
def test_runs_of_other_hosts_references_and_sizes_never_mix(
    changes: dict[str, Any], reason: str
) -> None:
    earlier = [one.model_copy(update=changes) for one in history(10)]
    comparison = judge_record(history(1, 7)[0], earlier)
    assert not comparison.comparable
    assert str(comparison.reason).startswith(reason)


def test_records_without_a_reference_are_compared_among_themselves() -> None:
    old, new = make_bench([bench_row(2.0)]), make_bench([bench_row(2.5)])
    mixed = [*history(5), old]
    comparison = judge_record(new, mixed)
    assert (comparison.count("worse"), comparison.runs) == (1, 1)
    assert comparison.against_utc == old.lineage.created_at_utc
    assert judge_record(new, history(5)).reason == (
        "no run before it was measured without a reference network too"
    )
    assert not judge_record(history(1)[0], [old] * 5).comparable


def test_another_checkpoint_is_named_where_there_was_no_reference() -> None:
    rows = [bench_row(2.0), bench_row(4.0, engine="torch")]
    file = make_bench().model
    assert file
    newer = file.model_copy(update={"sha256": "02" * 32})
    old, new = make_bench(rows, checkpoint=file), make_bench(rows, checkpoint=newer)
    comparison = judge_record(new, [old])
    assert [row.reason for row in comparison.rows] == [None, "models differ"]
    assert comparison.of_another_model
    preferred = judge_record(new, [old, make_bench(rows, checkpoint=newer)], across_models=True)
    assert not preferred.of_another_model


def test_rows_taken_together_find_what_no_row_shows_alone() -> None:
    rng = np.random.default_rng(0)

    def run(shift: float) -> BenchRecord:
        rows = [
            bench_row(1.0, batch_size=size, relative=relative(rng.normal(shift, 0.02), 0.015))
            for size in range(1, 17)
        ]
        return make_bench(rows, reference_sha256="ef" * 32)

    comparison = judge_record(run(0.04), [run(0.0) for _ in range(15)])
    pools = [row for row in comparison.rows if row.batch_size is None]
    assert [(row.outcome, row.label) for row in pools] == [
        ("worse", "onnx on CPU, all batch sizes, inference")
    ]
