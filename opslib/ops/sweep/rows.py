"""From trials to the record: rows, the result of each batch size, and what each axis does."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from opslib.core.errors import OpsError
from opslib.core.formatting import format_ms
from opslib.core.language import mark, tr, tr_many
from opslib.ops.sweep.arms import Arm, Line
from opslib.ops.sweep.finals import MAX_HALF_WIDTH_PCT, Ranking, rank, speedup_interval
from opslib.ops.sweep.heats import Contender
from opslib.ops.sweep.record import (
    AxisEffect,
    BatchResult,
    RaceResult,
    Recommended,
    SweepOptions,
    SweepRow,
    TriedRow,
)
from opslib.ops.sweep.trials import Trial, TrialBook

UNTIMED = mark("the time budget ended before it was measured")


class Requested(Protocol):
    """A requested combination: its arm's row, or why it cannot run; `note` tells a fallback."""

    @property
    def number(self) -> int: ...
    @property
    def arm_row(self) -> int | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def note(self) -> str | None: ...


def tell_trial(
    line: Requested,
    arms: Mapping[int, Contender],
    book: TrialBook,
    tied: frozenset[int] = frozenset(),
    stopped: str | None = None,
) -> tuple[dict[str, Any], Trial | None]:
    """Return the fields of a `TriedRow` for a requested combination, and its trial where it was
    timed itself. `arms`: by the number of their row. `tied`: row numbers of the tie sets.
    `stopped`: why nothing was timed, if so."""
    arm = None if line.arm_row is None else arms[line.arm_row]
    raced = book.race(arm.key) if arm else None
    told: dict[str, Any] = {
        "number": line.number,
        "provider": raced.provider if raced else "none",
        "note": line.note,
    }
    if arm is None:
        return told | {"status": f"unavailable: {line.reason}"}, None
    if arm.row != line.number:
        return told | {"status": f"equivalent to row {arm.row}"}, None
    final = book.final(arm.key)
    trial = final or raced
    told["max_abs_diff"] = trial.max_abs_diff if trial else None
    if trial is None or not trial.times_ms:
        why = (trial.reason if trial else None) or stopped or UNTIMED
        return told | {"status": f"unavailable: {why}"}, None
    speedup, interval = speedup_interval(trial.default_ms, trial.times_ms)
    pruned = trial.kind == "pruned"
    told |= {
        "status": f"pruned at round {trial.pruned_at}" if pruned else "measured",
        "speedup": speedup,
        "speedup_ci95": interval,
        "from_finals": final is not None,
        "tied_with_best": line.number in tied,
    }
    return told, trial


def make_row(
    line: Line,
    arms: Mapping[int, Arm],
    book: TrialBook,
    tied: frozenset[int] = frozenset(),
    stopped: str | None = None,
) -> SweepRow:
    """Return the row of a requested combination; see `tell_trial`."""
    told, trial = tell_trial(line, arms, book, tied, stopped)
    told |= {"batch_size": line.batch_size, "options": line.options}
    if line.arm_row == line.number:
        told["graph_sha256"] = arms[line.number].graph_sha256
    if trial is None:
        return SweepRow(**told)
    p50_ms = float(np.median(trial.times_ms))
    return SweepRow(
        **told,
        p50_ms=p50_ms,
        throughput_img_s=1000 * line.batch_size / p50_ms,
        raw_ms=shorten_times(trial.times_ms),
        default_raw_ms=shorten_times(trial.default_ms),
    )


def make_result(
    arms: Sequence[Contender], default: Contender, book: TrialBook, margin_pct: float, wall_s: float
) -> RaceResult:
    """Return how a race ended: fastest, tie set, what is recommended and its gain: the simplest of
    the tie set, or the default, for as long as that is not proven slower."""
    finalists = [arm for arm in arms if book.final(arm.key)]
    standing = rank_finalists(finalists, book, margin_pct)
    tied = [finalists[index] for index in standing.tied]
    unclear = [finalists[index] for index in standing.unclear]
    kept = [default] if default in unclear else tied
    simplest = min(kept, key=lambda arm: (len(arm.options.changes()), arm.row))
    trial = _final(book, simplest)
    gain, interval = speedup_interval(trial.default_ms, trial.times_ms, fewest=2)
    raced = [book.race(arm.key) for arm in arms]
    return RaceResult(
        default_row=default.row,
        best_row=finalists[standing.best].row,
        recommended_row=simplest.row,
        tie_set=tuple(sorted(arm.row for arm in tied)),
        unclear=tuple(arm.row for arm in unclear),
        gain=gain,
        gain_ci95=interval or (gain, gain),
        race_rounds=max((len(one.times_ms) for one in raced if one), default=0),
        final_rounds=len(trial.times_ms),
        run_delay_pct=trial.run_delay_pct,
        wall_s=round(wall_s, 3),
    )


def rank_finalists(finalists: Sequence[Contender], book: TrialBook, margin_pct: float) -> Ranking:
    """Return the standing of these finalists by their trials; see `rank`."""
    times = [_final(book, arm).times_ms for arm in finalists]
    return rank(list(zip(*times, strict=True)), margin_pct)


def describe_axes(
    rows: Sequence[SweepRow], batch_sizes: Sequence[int], margin_pct: float
) -> tuple[AxisEffect, ...]:
    """Return the effect of every option's value, all else at its default, at each batch size."""
    return tuple(effect for size in batch_sizes for effect in _axes_at(rows, size, margin_pct))


def _axes_at(rows: Sequence[SweepRow], batch_size: int, margin_pct: float) -> Iterator[AxisEffect]:
    usual = SweepOptions().flat()
    here = [row for row in rows if row.batch_size == batch_size]
    default = next(row for row in here if not row.options.changes())
    single = [row for row in here if len(row.options.changes()) == 1]
    others = {name for row in single for name in row.options.changes()} - usual.keys()
    names = [*usual, *sorted(others)]
    for row in sorted(single, key=lambda row: names.index(next(iter(row.options.changes())))):
        ((axis, value),) = row.options.changes().items()
        timed = follow(rows, row)
        same = timed.number == follow(rows, default).number
        yield AxisEffect(
            axis=axis,
            value=f"{value} instead of {usual.get(axis, 'the default')}",
            batch_size=batch_size,
            row=row.number,
            speedup=None if same else timed.speedup,
            speedup_ci95=None if same else timed.speedup_ci95,
            effect=_describe_effect(timed, same, margin_pct),
        )


def follow(rows: Sequence[SweepRow], row: SweepRow) -> SweepRow:
    """Return the row that a row is equivalent to, or itself."""
    return row if row.same_as is None else rows[row.same_as - 1]


def _describe_effect(row: SweepRow, same: bool, margin_pct: float) -> str:
    if same:
        return "no measurable effect (the same session)"
    if row.speedup is None:
        return f"not measured: {row.reason}"
    faster = row.speedup >= 1
    change = f"{row.speedup:.2f} × as fast" if faster else f"{1 / row.speedup:.2f} × slower"
    if row.outcome == "pruned":
        return f"{change}, out at round {row.pruned_at}"
    if row.speedup_ci95 is None:
        return f"not resolved ({len(row.raw_ms)} rounds)"
    low, high = row.speedup_ci95
    small = abs(row.speedup - 1) < margin_pct / 100
    if not low <= 1 <= high and not small:
        return change
    half_width_pct = 50 * (high - low) / row.speedup
    wide = half_width_pct > max(MAX_HALF_WIDTH_PCT, margin_pct)
    return f"not resolved (±{half_width_pct:.0f} %)" if wide else "no measurable effect"


def shorten_times(times_ms: Sequence[float]) -> tuple[float, ...]:
    """Return raw values with five significant digits, as records keep them."""
    return tuple(float(f"{one:.5g}") for one in times_ms)


def _final(book: TrialBook, arm: Contender) -> Trial:
    trial = book.final(arm.key)
    if trial is None:
        raise OpsError(f"row {arm.row} was not in the finals")
    return trial


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
    rate = chosen.throughput_img_s or 0
    if not decided:
        was = tr("fastest at batch {size}", size=batch.batch_size)
        return sum_up_undecided(batch, best.options.label, was)
    if recommended.is_default:
        figures = tr("{rate:,.0f} img/s, {p50} ms a batch", rate=rate, p50=format_ms(chosen.p50_ms))
        if best is chosen:
            text = tr(
                "The default is the fastest of everything tried at batch {size}: {figures}",
                size=batch.batch_size,
                figures=figures,
            )
        else:
            text = tr(
                "The default is as good as anything tried at batch {size}: {figures}",
                size=batch.batch_size,
                figures=figures,
            )
        if batch.best_row != recommended.row:
            text += tr(
                "; the fastest measured ({best}) is no more than noise away",
                best=best.options.label,
            )
    else:
        low, high = recommended.gain_ci95
        text = tr(
            "Set {changes}: {gain:.2f} × the default's speed at batch {size} (95 % interval "
            "{low:.2f} to {high:.2f}), {rate:,.0f} img/s",
            changes=recommended_text(recommended),
            gain=recommended.gain,
            size=batch.batch_size,
            low=low,
            high=high,
            rate=rate,
        )
    return text + sum_up_others(batch.tie_set, rows, margin_pct)


def sum_up_undecided(result: RaceResult, best: str, was: str) -> str:
    """Return the finding of a race that did not decide; `best` came first as `was` says."""
    others = tr("the default")
    if result.best_row == result.default_row:
        best, others = (
            others,
            tr_many("{count} other setting", "{count} other settings", len(result.unclear)),
        )
    rounds = tr_many("{count} round", "{count} rounds", result.final_rounds)
    return tr(
        "Inconclusive: {best} was {was}, but {others} could be neither separated from it nor "
        "called tied after {rounds}. Give it more time, or a quieter host.",
        best=best,
        was=was,
        others=others,
        rounds=rounds,
    )


def sum_up_others(tie_set: Collection[int], rows: Iterable[TriedRow], margin_pct: float) -> str:
    """Return the end of a finding: what is tied with the best, and what could not run and why."""
    others = len(tie_set) - 1
    tied = ""
    if others:
        tied = tr_many(
            "; {count} other setting tied within {margin:g} %",
            "; {count} other settings tied within {margin:g} %",
            others,
            margin=margin_pct,
        )
    reasons = Counter(row.reason for row in rows if row.outcome == "unavailable")
    parts = [
        tr_many(
            "{count} row unavailable ({reason})",
            "{count} rows unavailable ({reason})",
            count,
            reason=tr(str(reason)),
        )
        for reason, count in reasons.items()
    ]
    return f"{tied}. {'; '.join(parts)}." if parts else f"{tied}."


def recommended_text(recommended: Recommended) -> str:
    """Return the recommended changes as `name=value, name=value`."""
    return ", ".join(f"{name}={value}" for name, value in recommended.changes.items()) or tr(
        "nothing"
    )
