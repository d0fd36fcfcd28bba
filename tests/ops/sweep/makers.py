"""Finished sweep records for tests, made without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opslib.core.lineage import record_lineage
from opslib.inference.facts import InputFacts, ModelFacts
from opslib.ops.sweep.record import (
    BatchResult,
    Best,
    Recommended,
    SweepOptions,
    SweepRecord,
    SweepRow,
)
from opslib.ops.sweep.rows import describe_axes
from opslib.timing.disturbance import Disturbance

QUIET = Disturbance(
    wall_s=1.0,
    run_delay_pct=0.0,
    other_cpu_pct=0.0,
    load_average=0.1,
    throttled_s=None,
    cpu_frequency_mhz=None,
    foreign_gpu_processes=None,
)


def make_sweep(
    options: SweepOptions | None = None, *, gain: float = 1.25, **changes: Any
) -> SweepRecord:
    """Return a record with four rows that recommends `options` (no spinning by default)."""
    chosen = options or SweepOptions(allow_spinning=False)
    rows = (
        _row(1, SweepOptions(), 2.0, tied=not chosen.changes()),
        _row(2, chosen, 2.0 / gain, tied=True),
        SweepRow(
            number=3,
            batch_size=1,
            options=SweepOptions(providers=("CUDA",)),
            provider="none",
            status="unavailable: CUDA cannot start: no NVIDIA driver",
        ),
        SweepRow(
            number=4,
            batch_size=1,
            options=SweepOptions(cuda={"cudnn_conv_use_max_workspace": 0}),
            provider="CPU",
            status="equivalent to row 1",
        ),
    )
    recommended = 2 if chosen.changes() else 1
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
        "img_size": 16,
        "objective": "throughput",
        "seed": 0,
        "budget_s": 60.0,
        "wall_s": 9.0,
        "margin_pct": 2.0,
        "resumed_trials": 0,
        "disturbance": QUIET,
        "rows": rows,
        "batches": (
            BatchResult(
                batch_size=1,
                default_row=1,
                best_row=recommended,
                recommended_row=recommended,
                tie_set=(recommended,),
                unclear=(),
                gain=gain,
                gain_ci95=(gain - 0.02, gain + 0.02),
                race_rounds=6,
                final_rounds=10,
                run_delay_pct=1.0,
                wall_s=8.0,
            ),
        ),
        "best": Best(
            row=recommended,
            batch_size=1,
            options=chosen,
            p50_ms=2.0 / gain,
            throughput_img_s=500 * gain,
        ),
        "recommended": Recommended(
            row=recommended,
            batch_size=1,
            options=chosen,
            changes=chosen.changes(),
            gain=gain,
            gain_ci95=(gain - 0.02, gain + 0.02),
            tie_set=(recommended,),
        ),
        "axes": describe_axes(rows, [1], 2.0),
    }
    return SweepRecord(**{**fields, **changes})


def _row(number: int, options: SweepOptions, p50_ms: float, *, tied: bool) -> SweepRow:
    times_ms = tuple(p50_ms * (1 + 0.001 * index) for index in range(10))
    default_ms = tuple(2.0 * (1 + 0.001 * index) for index in range(10))
    return SweepRow(
        number=number,
        batch_size=1,
        options=options,
        provider="CPU",
        status="measured",
        note="CUDA cannot start: no NVIDIA driver",
        p50_ms=p50_ms,
        throughput_img_s=1000 / p50_ms,
        speedup=2.0 / p50_ms,
        speedup_ci95=(2.0 / p50_ms - 0.01, 2.0 / p50_ms + 0.01),
        from_finals=True,
        tied_with_best=tied,
        max_abs_diff=1e-6,
        raw_ms=times_ms,
        default_raw_ms=default_ms,
    )
