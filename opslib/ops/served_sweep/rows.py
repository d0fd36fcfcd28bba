"""From trials to rows, and what is said of them in one sentence."""

from collections.abc import Mapping, Sequence

import numpy as np

from opslib.core.language import tr
from opslib.ops.served_sweep.grid import Combination, ServedArm
from opslib.ops.served_sweep.record import Goal, ServedRecommended, ServedRow
from opslib.ops.sweep.record import RaceResult
from opslib.ops.sweep.rows import shorten_times, sum_up_others, sum_up_undecided, tell_trial
from opslib.ops.sweep.trials import TrialBook


def make_served_row(
    line: Combination,
    arms: Mapping[int, ServedArm],
    book: TrialBook,
    goal: Goal,
    tied: frozenset[int] = frozenset(),
    stopped: str | None = None,
) -> ServedRow:
    """Return the row of a requested combination; see `tell_trial`."""
    told, trial = tell_trial(line, arms, book, tied, stopped)
    told["options"] = line.options
    if trial is None:
        return ServedRow(**told)
    told["note"] = trial.note
    if goal.objective == "p99":
        return ServedRow(
            **told,
            p99_ms=float(np.median(trial.times_ms)),
            raw_p99_ms=shorten_times(trial.times_ms),
            default_raw_p99_ms=shorten_times(trial.default_ms),
        )
    rates = [1000 / one for one in trial.times_ms]
    return ServedRow(
        **told,
        rate_per_s=float(np.median(rates)),
        raw_per_s=shorten_times(rates),
        default_raw_per_s=shorten_times([1000 / one for one in trial.default_ms]),
    )


def figure_of(row: ServedRow) -> float | None:
    """Return the figure of a row's objective."""
    return row.rate_per_s if row.p99_ms is None else row.p99_ms


def sum_up_served(
    recommended: ServedRecommended,
    result: RaceResult,
    rows: Sequence[ServedRow],
    goal: Goal,
    margin_pct: float,
    *,
    decided: bool,
) -> str:
    """Return what to do, what it brings, how sure that is, and what was not tried."""
    best, chosen = rows[result.best_row - 1], rows[recommended.row - 1]
    figure = goal.tell(figure_of(chosen))
    if not decided:
        return sum_up_undecided(result, best.options.label, tr("best"))
    if recommended.is_default:
        if best is chosen:
            text = tr("The default is the best of everything tried: {figure}", figure=figure)
        else:
            text = tr("The default is as good as anything tried: {figure}", figure=figure)
            text += tr(
                "; the best measured ({best}) is no more than noise away", best=best.options.label
            )
    else:
        low, high = recommended.gain_ci95
        by_rate = goal.objective == "throughput"
        compared = tr("the default's rate") if by_rate else tr("as low a p99")
        text = tr(
            "Set {changes}: {gain:.2f} × {compared} (95 % interval {low:.2f} to {high:.2f}), "
            "{figure}",
            changes=changes_text(recommended),
            gain=recommended.gain,
            compared=compared,
            low=low,
            high=high,
            figure=figure,
        )
    return text + sum_up_others(result.tie_set, rows, margin_pct)


def changes_text(recommended: ServedRecommended) -> str:
    """Return the recommended changes as `key=value, key=value`."""
    changes = recommended.changes.items()
    return ", ".join(f"{key}={str(value).lower()}" for key, value in changes) or tr("nothing")
