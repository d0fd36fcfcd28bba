"""Whether the model still runs as fast here as it did when it was last measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opslib.core.clock import is_ahead, parse_moment, part_ahead
from opslib.core.errors import InputError
from opslib.core.language import mark, tr, tr_many
from opslib.ops.checklist.items import (
    Answer,
    SpeedChange,
    State,
    Visit,
    age_days,
    describe_age,
    named_moment,
    tell_ahead,
)

if TYPE_CHECKING:
    from opslib.ops.bench.compare import RecordComparison, RowComparison
    from opslib.ops.bench.record import BenchRecord

PATTERN = "bench_*.json"
MAX_READ = 20
RERUN = mark("run the benchmark: `pillops run 01_bench`")


def check_benchmark(visit: Visit) -> Answer:
    """Return how old the last benchmark is, and whether it was slower than the one before on the
    same host, beyond the noise of both."""
    limit_days = visit.config.checklist.bench_age_days
    ahead: list[str] = []
    records = _read_records(visit, ahead)
    last = next(records, None)
    if last is None:
        missing = tr("no benchmark in {folder}", folder=visit.config.records_dir)
        missing = tr("not set up: {line}", line=missing)
        return Answer.of("attention", _tell_ahead(ahead) or missing, step=tr(RERUN))
    path, newest = last
    age = age_days(newest.lineage.created_at_utc, visit.now)
    lines = [tr("last benchmark {age}: {name}", age=describe_age(age), name=path.name)]
    state: State = "ok"
    step = None
    if ahead:
        lines.append(str(_tell_ahead(ahead)))
        state = "attention"
        step = tr("set the clock right; move them away, or run the benchmark again")
    if age is None or age > limit_days:
        lines.append(tr("older than {days:g} days", days=limit_days))
        state, step = "attention", tr(RERUN)
    host = newest.lineage.host
    earlier = [one for _, one in records if one.lineage.host.is_same(host)]
    if not earlier:
        lines.append(tr("nothing to compare it with yet: the first on this host"))
        return Answer.of(state, *lines, step=step)
    from opslib.ops.bench.history import judge_record

    comparison = judge_record(newest, earlier, across_models=True)
    lines.append(_name_sides(newest, comparison))
    if not comparison.comparable:
        again = tr("run it again while nothing else runs: `pillops run 01_bench`")
        return Answer.of("attention", *lines, comparison.summary, step=again)
    verdict, told = _judge(visit, comparison)
    if verdict != "ok":
        step = tr(
            "run it again; if it stays: `pillops report check`, then what changed since then?"
        )
        state = verdict
    speeds = tuple(_change(row) for row in comparison.rows if row.change_pct is not None)
    lines += [told, *comparison.notes, *filter(None, [comparison.attribution])]
    return Answer(state=state, evidence=tuple(lines), next_step=step, speeds=speeds)


def _judge(visit: Visit, comparison: RecordComparison) -> tuple[State, str]:
    section = visit.config.checklist
    limit_pct = section.regression_attention_pct
    worse = [row for row in comparison.rows if row.outcome == "worse"]
    slower = [row for row in worse if (row.change_pct or 0) >= limit_pct]
    count = len([row for row in comparison.rows if row.change_pct is not None])
    if not slower:
        return "ok", tr_many(
            "no regression of {limit:g} % or more beyond the noise in {count} row",
            "no regression of {limit:g} % or more beyond the noise in {count} rows",
            count,
            limit=limit_pct,
        )
    worst = max(slower, key=lambda row: row.change_pct or 0)
    most = worst.label
    if worst.baseline_p50_ms and worst.candidate_p50_ms:
        most += tr(
            ", {before:.3g} to {after:.3g} ms",
            before=worst.baseline_p50_ms,
            after=worst.candidate_p50_ms,
        )
    told = tr_many(
        "{slower} of {count} row slower; most: {row} (+{pct:.1f} %)",
        "{slower} of {count} rows slower; most: {row} (+{pct:.1f} %)",
        count,
        slower=len(slower),
        row=most,
        pct=worst.change_pct or 0,
    )
    if comparison.of_another_model:
        return "attention", tr(
            "{told}; the model is another one, which may be the reason", told=told
        )
    if comparison.attribution is None and _is_the_host(comparison, limit_pct):
        return "attention", tr(
            "{told}; Torch is too: the host is slower, not the runtime", told=told
        )
    served = [row.change_pct or 0 for row in slower if row.engine == "onnx"]
    failed = max(served, default=0.0) >= section.regression_failed_pct
    return ("failed" if failed else "attention"), told


def _is_the_host(comparison: RecordComparison, within_pct: float) -> bool:
    """Whether Torch, which serves nothing here and is the control of records without a reference
    network, became slower by about as much as ONNX Runtime, or by more."""
    rows = [row for row in comparison.rows if row.change_pct is not None]
    served, control = (
        [row.change_pct or 0.0 for row in rows if row.engine == engine]
        for engine in ("onnx", "torch")
    )
    if not served or not control:
        return False
    slower_pct = statistics.median(control)
    return slower_pct >= within_pct and statistics.median(served) <= slower_pct + within_pct


def _read_records(visit: Visit, ahead: list[str]) -> Iterator[tuple[Path, BenchRecord]]:
    """The benchmarks kept, newest first; what is no record of ours is passed over, and so is what
    is dated after now, whose names `ahead` gets."""
    from opslib.ops.bench.record import BenchRecord

    paths = sorted(visit.config.records_dir.glob(PATTERN), reverse=True)
    past, future = part_ahead(paths, named_moment, visit.now)
    ahead += [path.name for path in future]
    for path in past[:MAX_READ]:
        try:
            record = BenchRecord.read(path)
        except InputError:
            continue
        if is_ahead(parse_moment(record.lineage.created_at_utc), visit.now):
            ahead.append(path.name)
        else:
            yield path, record


def _name_sides(newest: BenchRecord, comparison: RecordComparison) -> str:
    model = newest.model.name if newest.model else tr("Torch alone")
    if comparison.against_utc is None:
        return tr_many(
            "{model} against {count} benchmark before it",
            "{model} against {count} benchmarks before it",
            comparison.runs,
            model=model,
        )
    day = datetime.fromisoformat(comparison.against_utc).strftime("%Y-%m-%d %H:%M")
    return tr("{model} against the one of {day} UTC", model=model, day=day)


def _tell_ahead(names: list[str]) -> str | None:
    return tell_ahead(tr_many("{count} benchmark", "{count} benchmarks", len(names)), names)


def _change(row: RowComparison) -> SpeedChange:
    low, high = row.latency_ratio_ci99 or (1.0, 1.0)
    return SpeedChange(
        what=row.label,
        before_ms=row.baseline_p50_ms or 0.0,
        after_ms=row.candidate_p50_ms or 0.0,
        change_pct=row.change_pct or 0.0,
        change_ci99_pct=(100 * (low - 1), 100 * (high - 1)),
        outcome=row.outcome,
    )
