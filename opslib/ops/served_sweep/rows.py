"""From trials to rows, and what is said of them in one sentence."""

from collections.abc import Mapping, Sequence

import numpy as np

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
        return sum_up_undecided(result, best.options.label, "best")
    if recommended.is_default:
        rank = "the best of everything" if best is chosen else "as good as anything"
        text = f"The default is {rank} tried: {figure}"
        if best is not chosen:
            text += f"; the best measured ({best.options.label}) is no more than noise away"
    else:
        low, high = recommended.gain_ci95
        compared = "the default's rate" if goal.objective == "throughput" else "as low a p99"
        text = (
            f"Set {changes_text(recommended)}: {recommended.gain:.2f} × {compared} "
            f"(95 % interval {low:.2f} to {high:.2f}), {figure}"
        )
    return text + sum_up_others(result.tie_set, rows, margin_pct)


def changes_text(recommended: ServedRecommended) -> str:
    """Return the recommended changes as `key=value, key=value`."""
    changes = recommended.changes.items()
    return ", ".join(f"{key}={str(value).lower()}" for key, value in changes) or "nothing"
