"""Finished records of a sweep of the service for tests, made without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opslib.core.lineage import record_lineage
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.ops.served_sweep.record import (
    Goal,
    ServedBest,
    ServedOptions,
    ServedRecommended,
    ServedRow,
    ServedSweepRecord,
)
from opslib.ops.sweep.record import RaceResult
from tests.ops.sweep.makers import QUIET

TUNED = ServedOptions(workers=1, intra_op_num_threads=0, max_batch=1, allow_spinning=False)


def make_served(
    options: ServedOptions = TUNED, *, gain: float = 1.25, **changes: Any
) -> ServedSweepRecord:
    """Return a record with four rows that recommends `options`."""
    chosen = 2 if options.changes() else 1
    rows = (
        _row(1, ServedOptions(), 800.0, tied=chosen == 1),
        _row(2, options, 800.0 * gain, tied=True),
        ServedRow(
            number=3,
            options=ServedOptions(allow_spinning=False),
            provider="none",
            status="equivalent to row 1",
        ),
        ServedRow(
            number=4,
            options=ServedOptions(workers=1),
            provider="CPU",
            status="unavailable: its p99 is over 100 ms at 3 requests a second too",
        ),
    )
    interval = (gain - 0.02, gain + 0.02)
    fields: dict[str, Any] = {
        "verdict": "pass",
        "finding": "Set it so.",
        "exit_code": 0,
        "lineage": record_lineage(Path(__file__).parent),
        "model": ModelFacts(
            name="m.onnx",
            sha256="0" * 64,
            size_bytes=1,
            num_classes=3,
            input_shape=(None, 3, 16, 16),
            input_dtype="float32",
        ),
        "inputs": InputFacts(glob="*.jpg", count=4, sha256="0" * 64, skipped=()),
        "goal": Goal(objective="throughput", p99_limit_ms=100.0),
        "seed": 0,
        "budget_s": 60.0,
        "wall_s": 9.0,
        "margin_pct": 2.0,
        "resumed_trials": 0,
        "sent_late_p99_ms": 0.4,
        "disturbance": QUIET,
        "rows": rows,
        "result": RaceResult(
            default_row=1,
            best_row=chosen,
            recommended_row=chosen,
            tie_set=(chosen,),
            unclear=(),
            gain=gain,
            gain_ci95=interval,
            race_rounds=6,
            final_rounds=10,
            run_delay_pct=None,
            wall_s=8.0,
        ),
        "best": ServedBest(row=chosen, options=options, rate_per_s=800 * gain, p99_ms=None),
        "recommended": ServedRecommended(
            row=chosen,
            options=options,
            changes=options.changes(),
            gain=gain,
            gain_ci95=interval,
            tie_set=(chosen,),
        ),
    }
    return ServedSweepRecord(**{**fields, **changes})


def _row(number: int, options: ServedOptions, rate_per_s: float, *, tied: bool) -> ServedRow:
    speedup = rate_per_s / 800.0
    return ServedRow(
        number=number,
        options=options,
        provider="CPU",
        status="measured",
        rate_per_s=rate_per_s,
        speedup=speedup,
        speedup_ci95=(speedup - 0.01, speedup + 0.01),
        from_finals=True,
        tied_with_best=tied,
        max_abs_diff=1e-6,
        raw_per_s=tuple(rate_per_s * (1 + 0.001 * index) for index in range(10)),
        default_raw_per_s=tuple(800.0 * (1 + 0.001 * index) for index in range(10)),
    )
