"""A sweep in one or two sentences, for the person who reads nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from opslib.core.formatting import format_ms, plural
from opslib.ops.sweep.record import BatchResult, Recommended, SweepRow


def sum_up_sweep(
    recommended: Recommended,
    batch: BatchResult,
    rows: Sequence[SweepRow],
    margin_pct: float,
    *,
    decided: bool,
) -> str:
    """Return what to do, what it brings, how sure that is, and what was not tried."""
    best, chosen = rows[batch.best_row - 1], rows[recommended.row - 1]
    low, high = recommended.gain_ci95
    span = f"95 % interval {low:.2f} to {high:.2f}"
    where = f"at batch {batch.batch_size}"
    if not decided:
        return (
            f"Inconclusive: {best.options.label} was fastest {where}, but the default could be "
            f"neither separated from it nor called tied after {batch.final_rounds} rounds. "
            "Give it more time, or a quieter host."
        )
    if recommended.is_default:
        rank = "the fastest of everything" if best is chosen else "as good as anything"
        text = (
            f"The default is {rank} tried {where}: "
            f"{chosen.throughput_img_s or 0:,.0f} img/s, {format_ms(chosen.p50_ms)} ms a batch"
        )
        if batch.best_row != recommended.row:
            text += f"; the fastest measured ({best.options.label}) is no more than noise away"
    else:
        text = (
            f"Set {recommended_text(recommended)}: {recommended.gain:.2f} × the default's speed "
            f"{where} ({span}), {chosen.throughput_img_s or 0:,.0f} img/s"
        )
    others = len(batch.tie_set) - 1
    if others:
        text += f"; {plural(others, 'other setting')} tied within {margin_pct:g} %"
    return f"{text}.{_untried(rows)}"


def recommended_text(recommended: Recommended) -> str:
    """Return the recommended changes as `name=value, name=value`."""
    return ", ".join(f"{name}={value}" for name, value in recommended.changes.items()) or "nothing"


def _untried(rows: Sequence[SweepRow]) -> str:
    """Say what could not run here: one sentence for each reason."""
    reasons = Counter(row.reason for row in rows if row.outcome == "unavailable")
    parts = [f"{plural(count, 'row')} unavailable ({reason})" for reason, count in reasons.items()]
    return f" {'; '.join(parts)}." if parts else ""
