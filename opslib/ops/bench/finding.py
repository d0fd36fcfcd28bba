"""A benchmark in one sentence, for the person who reads nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from opslib.core.formatting import format_ms, plural
from opslib.core.sections import BenchSection
from opslib.core.verdicts import Verdict
from opslib.inference.parity import ParityResult
from opslib.ops.bench.record import BenchRow, SpeedComparison

ENGINE_NAMES = {"onnx": "ONNX Runtime", "torch": "Torch"}


def sum_up(
    rows: Sequence[BenchRow],
    comparisons: Sequence[SpeedComparison],
    parity: ParityResult | None,
    verdict: Verdict,
    section: BenchSection,
) -> str:
    """Return the benchmark's finding as one or two sentences with their uncertainty."""
    if parity is not None and not parity.passed:
        return f"The two engines do not answer alike: {parity.reason}. Nothing was timed."
    timed = [row for row in rows if row.boundary == "inference" and row.latency_ms]
    if not timed:
        reasons = "; ".join(dict.fromkeys(row.reason or "" for row in rows))
        none = all(row.status == "unavailable" for row in rows)
        return f"Nothing {'could run' if none else 'was measured'}: {reasons}."
    parts = [_describe_engine(timed), _describe_comparison(comparisons)]
    if verdict == "inconclusive":
        wide = [row for row in rows if row.status == "inconclusive"]
        parts.append(
            f" Inconclusive: {plural(len(wide), 'figure')} of {len(rows)} "
            f"missed ±{section.target_half_width_pct:g} %."
        )
    return "".join(part for part in parts if part)


def _describe_engine(timed: Sequence[BenchRow]) -> str:
    engine = "onnx" if any(row.engine == "onnx" for row in timed) else "torch"
    rows = [row for row in timed if row.engine == engine]
    first = min(rows, key=lambda row: row.batch_size)
    best = max(rows, key=lambda row: row.throughput_img_s or 0.0)
    if first.latency_ms is None or best.throughput_img_s is None:
        return ""
    width = f" (±{first.half_width_pct:.1f} %)" if first.half_width_pct is not None else ""
    count = "one image" if first.batch_size == 1 else f"a batch of {first.batch_size}"
    return (
        f"{ENGINE_NAMES[engine]} on {first.provider} answers {count} in "
        f"{format_ms(first.latency_ms.p50)} ms{width} and reaches "
        f"{best.throughput_img_s:,.0f} img/s at batch {best.batch_size}."
    )


def _describe_comparison(comparisons: Sequence[SpeedComparison]) -> str:
    decided = [one for one in comparisons if one.comparison.verdict in ("faster", "slower")]
    if not comparisons:
        return ""
    if not decided and any(one.comparison.verdict == "inconclusive" for one in comparisons):
        return " Whether it is faster than Torch is undecided."
    if not decided:
        return " No measurable difference to Torch was found."
    speedups = [one.comparison.speedup for one in decided]
    low, high = min(speedups), max(speedups)
    span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    where = (
        "at every batch size"
        if len(decided) == len(comparisons)
        else f"at batch {', '.join(str(one.batch_size) for one in decided)}"
    )
    return f" It runs at {span} times the speed of Torch {where}."
