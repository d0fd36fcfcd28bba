"""All trends of the report folder, and whether a figure became worse of late."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from opslib.core.clock import parse_moment
from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import stamp, utc_now
from opslib.core.language import tr, tr_many
from opslib.core.lineage import record_lineage
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.ops.trends.record import TrendRow, TrendsRecord, TrendStep
from opslib.runs.catalogue import scan_runs
from opslib.runs.trend_pages import TRENDS_FOLDER
from opslib.runs.trends import Trend, describe_change, explain_step, list_trends
from opslib.timing.steps import FEWEST_RUNS

LONGEST_DAYS = 3650.0


def run_trends(root: Path, *, days: float = 7.0, notebook: str | None = None) -> TrendsRecord:
    """Return the record of the trends of a report folder; nothing is written.

    Args:
        days: a step counts for the verdict when no older runs told it, and a figure when it has a
            run that is not older.
        notebook: only this notebook's figures, such as `01_bench`.

    Raises:
        ParameterError: `days` is out of range, or no run is of that notebook.
    """
    if not 0 < days <= LONGEST_DAYS:
        raise ParameterError(f"days: got {days:g}; expected above 0 to {LONGEST_DAYS:g}")
    runs = scan_runs(root)
    if notebook is not None:
        names = sorted({run.notebook for run in runs})
        runs = [run for run in runs if run.notebook == notebook]
        if not runs:
            known = ", ".join(names) or "no run at all"
            raise ParameterError(f"notebook: no run of {notebook!r}; there are runs of {known}")
    since = utc_now() - timedelta(days=days)
    trends = [trend for trend in list_trends(runs) if len(trend.runs) > 1]
    older = [_count_older(trend, since) for trend in trends]
    rows = [_make_row(root, *one) for one in zip(trends, older, strict=True)]
    told = [(row, count) for row, count in zip(rows, older, strict=True) if row.can_tell]
    fresh = [row for row, count in told if count < len(row.values)]
    verdict, finding = _judge([row for row, _ in told], len(fresh), days)
    return TrendsRecord(
        verdict=verdict,
        finding=finding,
        exit_code=int(VERDICT_EXIT_CODES[verdict]),
        lineage=record_lineage(),
        days=days,
        rows=tuple(rows),
    )


def keep_trends(record: TrendsRecord, config: Config) -> Path:
    """Write the record to `{exp_dir}/reports/trends_<UTC>.json`; return its path."""
    return record.write(config.records_dir / f"trends_{stamp()}.json")


def _count_older(trend: Trend, since: datetime) -> int:
    moments = [parse_moment(run.started) for run in trend.runs]
    return sum(moment is None or moment < since for moment in moments)


def _make_row(root: Path, trend: Trend, older: int) -> TrendRow:
    last = trend.runs[-1]
    steps = []
    for step in trend.steps:
        before, after = trend.runs[step.at - 1], trend.runs[step.at]
        steps.append(
            TrendStep(
                at=step.at,
                day=after.started[:10],
                run=after.id,
                before=step.before,
                after=step.after,
                change=describe_change(trend, step),
                better=step.better,
                recent=not trend.was_told(step, older),
                changed=tuple(explain_step(root, before, after)),
            )
        )
    return TrendRow(
        notebook=last.notebook,
        label=trend.label,
        host=str(last.host),
        unit=trend.scrap.unit,
        page=f"{TRENDS_FOLDER}/{trend.page}",
        values=trend.values,
        days=tuple(run.started[:10] for run in trend.runs),
        steps=tuple(steps),
    )


def _judge(told: Sequence[TrendRow], fresh: int, days: float) -> tuple[Verdict, str]:
    """The verdict on the figures with runs enough; so many of them have a run of these days."""
    if not told:
        return "inconclusive", tr(
            "No figure has runs enough: a step needs {least} runs with the same parameters "
            "on the same host.",
            least=FEWEST_RUNS,
        )
    recent = [(row, step) for row in told for step in row.recent]
    worse = sorted((one for one in recent if not one[1].better), key=lambda one: one[1].day)
    figures = tr_many(
        "{count:,} figure with {least} runs or more",
        "{count:,} figures with {least} runs or more",
        fresh or len(told),
        least=FEWEST_RUNS,
    )
    if worse:
        row, step = worse[-1]
        change = tr(
            "{figure} changed by {change} on {day}",
            figure=row.name,
            change=step.change,
            day=step.day,
        )
        if worse[1:]:
            change += tr_many(
                ", and {count} more step for the worse",
                ", and {count} more steps for the worse",
                len(worse) - 1,
            )
        return "fail", tr("{change}, of {figures}.", change=change, figures=figures)
    if days >= 1:
        span = tr_many("{count:,} day", "{count:,} days", round(days))
    else:
        span = tr("{hours:.0f} hours", hours=24 * days)
    if not fresh:
        return "inconclusive", tr(
            "No run in the last {span} of {figures}: the newest is of {day}.",
            span=span,
            figures=figures,
            day=max(row.days[-1] for row in told),
        )
    if fresh < len(told):
        figures += tr_many(
            "; {count:,} more was not measured",
            "; {count:,} more were not measured",
            len(told) - fresh,
        )
    if recent:
        figures += tr_many(
            "; {count} step for the better", "; {count} steps for the better", len(recent)
        )
    return "pass", tr(
        "No step for the worse in the last {span}, of {figures}.", span=span, figures=figures
    )
