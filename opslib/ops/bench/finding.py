"""A benchmark's finding: what it found and what is open, in a few sentences."""

from collections.abc import Sequence

from opslib.core.formatting import format_ms
from opslib.core.language import tr, tr_many
from opslib.core.sections import BenchSection
from opslib.core.verdicts import Verdict
from opslib.inference.parity import ParityResult
from opslib.ops.bench.record import ENGINE_NAMES, BenchRow, SpeedComparison


def sum_up(
    rows: Sequence[BenchRow],
    comparisons: Sequence[SpeedComparison],
    parity: ParityResult | None,
    verdict: Verdict,
    section: BenchSection,
    missing: Sequence[str] = (),
) -> str:
    """Return the benchmark's finding as a few sentences with their uncertainty. `missing`: why
    something that was asked for has no figure, though the model takes its batch size."""
    if parity is not None and not parity.passed:
        return tr(
            "The two engines do not answer alike: {reason}. Nothing was timed.",
            reason=parity.reason,
        )
    timed = [row for row in rows if row.boundary == "inference" and row.latency_ms]
    if not timed:
        reasons = "; ".join(dict.fromkeys(map(tr, (row.reason or "" for row in rows))))
        if all(row.status == "unavailable" for row in rows):
            return tr("Nothing could run: {reasons}.", reasons=reasons)
        return tr("Nothing was measured: {reasons}.", reasons=reasons)
    parts = [_describe_engine(timed), _describe_comparison(comparisons)]
    if missing:
        reasons = "; ".join(dict.fromkeys(map(tr, missing)))
        if verdict == "fail":
            parts.append(tr("Failed: {reasons}.", reasons=reasons))
        else:
            parts.append(tr("Inconclusive: not all could be measured: {reasons}.", reasons=reasons))
    if verdict == "inconclusive":
        wide = sum(row.status == "inconclusive" for row in rows)
        if wide:
            parts.append(
                tr_many(
                    "Inconclusive: {count} ratio of {rows} to the reference network missed "
                    "±{pct:g} %.",
                    "Inconclusive: {count} ratios of {rows} to the reference network missed "
                    "±{pct:g} %.",
                    wide,
                    rows=len(rows),
                    pct=section.target_half_width_pct,
                )
            )
    return " ".join(part for part in parts if part)


def _describe_engine(timed: Sequence[BenchRow]) -> str:
    engine = "onnx" if any(row.engine == "onnx" for row in timed) else "torch"
    rows = [row for row in timed if row.engine == engine]
    first = min(rows, key=lambda row: row.batch_size)
    best = max(rows, key=lambda row: row.throughput_img_s or 0.0)
    if first.latency_ms is None or best.throughput_img_s is None:
        return ""
    width = f" (±{first.half_width_pct:.1f} %)" if first.half_width_pct is not None else ""
    alone = first.batch_size == 1
    count = tr("one image") if alone else tr("a batch of {size}", size=first.batch_size)
    took = f"{format_ms(first.latency_ms.p50)} ms{width}"
    if first.relative is not None:
        took = tr(
            "{took}, {ratio:.2f} × the reference network (±{pct:.1f} %),",
            took=took,
            ratio=first.relative.ratio,
            pct=first.relative.half_width_pct,
        )
    return tr(
        "{engine} on {provider} answers {count} in {took} and reaches {rate:,.0f} img/s at batch "
        "{batch}.",
        engine=ENGINE_NAMES[engine],
        provider=first.provider,
        count=count,
        took=took,
        rate=best.throughput_img_s,
        batch=best.batch_size,
    )


def _describe_comparison(comparisons: Sequence[SpeedComparison]) -> str:
    if not comparisons:
        return ""
    decided = [one for one in comparisons if one.direction in ("faster", "slower")]
    if not decided:
        if any(one.direction is None for one in comparisons):
            return tr("Whether it is faster than Torch is undecided.")
        return tr("No measurable difference to Torch was found.")
    speedups = [f"{one.comparison.speedup:.2f}" for one in decided]
    low, high = min(speedups, key=float), max(speedups, key=float)
    span = low if low == high else tr("{low} to {high}", low=low, high=high)
    if len(decided) == len(comparisons):
        return tr("It runs at {span} times the speed of Torch at every batch size.", span=span)
    text = tr(
        "It runs at {span} times the speed of Torch at batch {sizes}.",
        span=span,
        sizes=_sizes(decided),
    )
    undecided = [one for one in comparisons if one.direction is None]
    if undecided:
        text += " " + tr("At batch {sizes} that is undecided.", sizes=_sizes(undecided))
    return text


def _sizes(comparisons: Sequence[SpeedComparison]) -> str:
    return ", ".join(str(one.batch_size) for one in comparisons)
