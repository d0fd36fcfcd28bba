"""H-9: the last benchmark against the one before."""

from __future__ import annotations

import pytest

from opslib.ops.checklist.benchmarks import check_benchmark
from opslib.ops.checklist.items import Answer
from tests.ops.checklist.conftest import Plant, write_bench
from tests.runs.makers import bench_row, make_lineage


def said(answer: Answer) -> str:
    return "\n".join(answer.evidence)


def test_no_benchmark_is_said_with_the_command_that_makes_one(resting: Plant) -> None:
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "not set up" in said(answer)
    assert "pillops run 01_bench" in (answer.next_step or "")


def test_the_first_one_has_nothing_to_be_compared_with(resting: Plant) -> None:
    write_bench(resting.config(), 1, bench_row(2.0))
    answer = check_benchmark(resting.visit())
    assert answer.state == "ok"
    assert "nothing to compare it with yet" in said(answer)


def test_an_old_one_wants_to_be_run_again(resting: Plant) -> None:
    write_bench(resting.config(), 36, bench_row(2.0))
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "36 days ago" in said(answer)
    assert "older than 35 days" in said(answer)


@pytest.mark.parametrize(
    ("after_ms", "state"),
    [(2.0, "ok"), (2.06, "ok"), (2.09, "ok"), (2.12, "attention"), (2.2, "failed"), (1.5, "ok")],
)
def test_a_regression_beyond_the_noise_is_noticed(
    resting: Plant, after_ms: float, state: str
) -> None:
    write_bench(resting.config(), 31, bench_row(2.0), bench_row(5.0, batch_size=8))
    write_bench(resting.config(), 1, bench_row(after_ms), bench_row(5.0, batch_size=8))
    answer = check_benchmark(resting.visit())
    assert answer.state == state, answer
    assert len(answer.speeds) == 2
    if state != "ok":
        assert "1 of 2 rows slower; most: onnx on CPU, batch 1, inference, 2 to" in said(answer)


def test_a_change_within_the_noise_of_a_restless_host_is_no_regression(resting: Plant) -> None:
    blocks = ((1.7,) * 5, (2.3,) * 5, (1.9,) * 5, (2.1,) * 5)
    write_bench(resting.config(), 31, bench_row(2.0, raw_ms=blocks))
    write_bench(resting.config(), 1, bench_row(2.2))
    assert check_benchmark(resting.visit()).state == "ok"


def test_a_host_that_is_slower_as_a_whole_is_told_from_a_slower_runtime(resting: Plant) -> None:
    def rows(factor: float, torch: float) -> tuple[object, ...]:
        return (bench_row(2.0 * factor), bench_row(6.0 * torch, engine="torch"))

    write_bench(resting.config(), 31, *rows(1, 1))
    write_bench(resting.config(), 2, *rows(1.12, 1.13))
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "the host is slower, not the runtime" in said(answer)
    write_bench(resting.config(), 1, *rows(1.4, 1.13))
    assert check_benchmark(resting.visit()).state == "failed"


def test_only_the_same_host_is_compared_with(resting: Plant) -> None:
    write_bench(resting.config(), 31, bench_row(1.0), lineage=make_lineage("ffffffffffff"))
    write_bench(resting.config(), 1, bench_row(2.0))
    answer = check_benchmark(resting.visit())
    assert answer.state == "ok"
    assert "nothing to compare it with yet" in said(answer)


def test_another_model_is_compared_and_named(resting: Plant) -> None:
    path = write_bench(resting.config(), 31, bench_row(2.0))
    write_bench(resting.config(), 1, bench_row(2.4))
    text = path.read_text()
    path.write_text(text.replace("ab" * 32, "ef" * 32).replace("model.onnx", "before.onnx"))
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "model, before.onnx (efefefef) → model.onnx (abababab)" in said(answer)
    assert "the model is another one" in said(answer)


def test_one_that_cannot_be_compared_is_passed_over_for_the_one_before(resting: Plant) -> None:
    write_bench(resting.config(), 62, bench_row(2.0))
    write_bench(resting.config(), 31, bench_row(2.0, status="inconclusive"))
    write_bench(resting.config(), 1, bench_row(2.3))
    assert check_benchmark(resting.visit()).state == "failed"


def test_where_nothing_can_be_compared_that_is_said(resting: Plant) -> None:
    write_bench(resting.config(), 31, bench_row(2.0))
    write_bench(resting.config(), 1, bench_row(2.0, status="inconclusive"))
    answer = check_benchmark(resting.visit())
    assert answer.state == "attention"
    assert "not comparable: inconclusive in the candidate" in said(answer)


def test_what_is_no_record_is_passed_over(resting: Plant) -> None:
    write_bench(resting.config(), 1, bench_row(2.0))
    (resting.config().records_dir / "bench_99999999-000000.json").write_text("{")
    assert check_benchmark(resting.visit()).state == "ok"
