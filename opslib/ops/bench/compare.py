"""Two bench records side by side: what got better, worse, or cannot be told.

A difference counts when a test *and* a minimum effect say so: the 99 % interval of the latency
ratio excludes 1 and the ratio lies farther from 1 than 2 %. Where both records have the ratio to
the same reference network, those are compared, with what such ratios differ by from run to run;
else milliseconds, on the logarithms of the block medians, and the minimum is at least both records'
own noise floor. Both by Welch's t with Satterthwaite's degrees of freedom.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from opslib.core.language import tr, tr_many
from opslib.core.records import Part, Record
from opslib.ops.bench.comparable import refuse_model, refuse_records, refuse_rows
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.timing.blocks import Boundary

Outcome = Literal["better", "worse", "no measurable change", "not comparable"]
MIN_EFFECT_PCT = 2.0
CONFIDENCE = 0.99
BETWEEN_RUNS = 0.02  # what the logarithm of a ratio to the reference differs by from run to run


class RowComparison(Part):
    """One row of the candidate against the same row before. `latency_ratio` is candidate /
    baseline (below 1 is better), `latency_ratio_ci99` its interval at the `confidence` of the whole
    comparison; `min_effect_pct` the distance from 1 that counted; `runs` how many runs stand on the
    other side; `reason` says why a row is not comparable, or is not called better or worse all the
    same. Without a batch size it stands for all rows of its engine and boundary together."""

    engine: str
    provider: str
    batch_size: int | None
    boundary: Boundary
    outcome: Outcome
    reason: str | None = None
    baseline_p50_ms: float | None = None
    candidate_p50_ms: float | None = None
    latency_ratio: float | None = None
    latency_ratio_ci99: tuple[float, float] | None = None
    min_effect_pct: float | None = None
    runs: int = 1

    @property
    def label(self) -> str:
        """The row in words."""
        where = tr("inference") if self.boundary == "inference" else tr("end to end")
        batch = (
            tr("batch {size}", size=self.batch_size) if self.batch_size else tr("all batch sizes")
        )
        return tr(
            "{engine} on {provider}, {batch}, {where}",
            engine=self.engine,
            provider=self.provider,
            batch=batch,
            where=where,
        )

    @property
    def change_pct(self) -> float | None:
        """Change of the latency in percent; negative is faster."""
        return None if self.latency_ratio is None else 100 * (self.latency_ratio - 1)


class RecordComparison(Record):
    """All rows of a bench record against those of another (made at `against_utc`, where no person
    named it), or of `runs` earlier ones, matched by engine, provider, batch size and boundary.

    `changed` says by name which conditions differ, `attribution` where a change comes from: the
    model, the preprocessing, the runtime or the host. `confidence` is that of each row's interval:
    0.99, or more where the intervals of all rows hold together with 0.99.
    """

    schema_name: ClassVar[str] = "record-comparison"

    rows: tuple[RowComparison, ...]
    runs: int = 1
    against_utc: str | None = None
    changed: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    attribution: str | None = None
    confidence: float = CONFIDENCE

    @property
    def of_another_model(self) -> bool:
        """Whether what is on the other side had another model."""
        return "model" in self.changed

    def count(self, outcome: Outcome) -> int:
        """Return how many rows have this outcome."""
        return sum(row.outcome == outcome for row in self.rows)

    @property
    def comparable(self) -> bool:
        """Whether at least one row could be compared."""
        return any(row.outcome != "not comparable" for row in self.rows)

    @property
    def reason(self) -> str | None:
        """Why nothing could be compared, where that is so."""
        if self.comparable or not self.rows:
            return None if self.rows else tr("there are no rows")
        return self.rows[0].reason

    @property
    def summary(self) -> str:
        """The comparison as one sentence, the largest change named."""
        if not self.comparable:
            return tr("not comparable: {reason}", reason=self.reason)
        parts = []
        for outcome in ("worse", "better"):
            found = [row for row in self.rows if row.outcome == outcome]
            if found:
                row = max(found, key=lambda item: abs(math.log(item.latency_ratio or 1.0)))
                most = f"{row.label} {describe_shift(row.change_pct or 0.0)}"
                if outcome == "worse":
                    parts.append(
                        tr_many(
                            "{count} row worse (most: {most})",
                            "{count} rows worse (most: {most})",
                            len(found),
                            most=most,
                        )
                    )
                else:
                    parts.append(
                        tr_many(
                            "{count} row better (most: {most})",
                            "{count} rows better (most: {most})",
                            len(found),
                            most=most,
                        )
                    )
        same, other = self.count("no measurable change"), self.count("not comparable")
        if same:
            parts.append(
                tr_many(
                    "{count} row without a measurable change",
                    "{count} rows without a measurable change",
                    same,
                )
            )
        if other:
            parts.append(
                tr_many("{count} row not comparable", "{count} rows not comparable", other)
            )
        told = ", ".join(parts)
        if self.runs > 1:
            return tr("held against {runs} runs: {told}", runs=self.runs, told=told)
        return told


def describe_shift(change_pct: float) -> str:
    """Return a change of latency in words: `3.1 % slower`."""
    if change_pct > 0:
        return tr("{pct:.1f} % slower", pct=change_pct)
    return tr("{pct:.1f} % faster", pct=abs(change_pct))


def compare_records(
    baseline: BenchRecord, candidate: BenchRecord, *, across_models: bool = False
) -> RecordComparison:
    """Return how the candidate's latencies differ from the baseline's, row by row. `across_models`:
    compare although the models differ, which is then the point."""
    refusal = refuse_records(baseline, candidate)
    floor_pct = max(MIN_EFFECT_PCT, noise_floor_pct(baseline), noise_floor_pct(candidate))
    rows = []
    related = baseline.reference_sha256 == candidate.reference_sha256 is not None
    for old, new in _pair_rows(baseline.rows, candidate.rows):
        both = related and old and new and old.relative and new.relative
        reason = refusal
        if reason is None and not across_models and old and new:
            reason = refuse_model(baseline, candidate, new.engine)
        reason = reason or refuse_rows(old, new, related=bool(both))
        if reason is None and old is not None and old.boundary == "end_to_end":
            same = baseline.inputs.sha256 == candidate.inputs.sha256
            reason = None if same else tr("the images differ")
        if reason is not None or old is None or new is None:
            rows.append(_describe_pair(old, new, outcome="not comparable", reason=reason))
        elif both:
            rows.append(_compare_ratios(old, new))
        else:
            rows.append(_compare_rows(old, new, floor_pct))
    return RecordComparison(rows=tuple(rows))


def noise_floor_pct(record: BenchRecord) -> float:
    """Return how far from 1 the record's comparison of a thing with itself reached, in percent."""
    if record.noise_floor is None:
        return 0.0
    return 100 * max(abs(end - 1) for end in record.noise_floor.speedup_ci95)


def welch_interval(
    baseline: Sequence[float], candidate: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, tuple[float, float]]:
    """Return the difference of two means (candidate - baseline) and its interval; unequal
    variances."""
    old, new = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    difference = float(new.mean() - old.mean())
    parts = [(float(one.var(ddof=1)) / one.size, one.size - 1) for one in (old, new)]
    reach = _reach(parts, confidence=confidence)
    return difference, (difference - reach, difference + reach)


def _reach(
    parts: Sequence[tuple[float, float]], known: float = 0.0, confidence: float = CONFIDENCE
) -> float:
    """Half the width of the interval of a sum. Welch (1947), degrees of freedom after Satterthwaite
    (1946). `parts`: squared standard errors with their degrees; `known`: one without any doubt."""
    from scipy.special import stdtrit

    spread = sum(part**2 / degrees for part, degrees in parts)
    variance = known + sum(part for part, _ in parts)
    degrees = variance**2 / spread if spread else math.inf
    return float(stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance)


def _compare_ratios(old: BenchRow, new: BenchRow) -> RowComparison:
    (before, own), (after, its) = old.log_ratio, new.log_ratio
    effect = after - before
    reach = _reach([(own, old.ratio_degrees), (its, new.ratio_degrees)], known=2 * BETWEEN_RUNS**2)
    return _describe_pair(
        old,
        new,
        outcome=_outcome(effect, effect - reach, effect + reach, MIN_EFFECT_PCT),
        latency_ratio=math.exp(effect),
        latency_ratio_ci99=(math.exp(effect - reach), math.exp(effect + reach)),
        min_effect_pct=MIN_EFFECT_PCT,
    )


def _outcome(effect: float, low: float, high: float, floor_pct: float) -> Outcome:
    if (low > 0 or high < 0) and abs(effect) >= math.log1p(floor_pct / 100):
        return "worse" if effect > 0 else "better"
    return "no measurable change"


def _compare_rows(old: BenchRow, new: BenchRow, floor_pct: float) -> RowComparison:
    logs = [np.log(row.block_medians_ms()) for row in (old, new)]
    effect, (low, high) = welch_interval(logs[0].tolist(), logs[1].tolist())
    return _describe_pair(
        old,
        new,
        outcome=_outcome(effect, low, high, floor_pct),
        latency_ratio=math.exp(effect),
        latency_ratio_ci99=(math.exp(low), math.exp(high)),
        min_effect_pct=floor_pct,
    )


def _describe_pair(old: BenchRow | None, new: BenchRow | None, **found: Any) -> RowComparison:
    row = new or old
    if row is None:
        raise ValueError("a comparison needs a row on one side")
    return RowComparison(
        engine=row.engine,
        provider=row.provider,
        batch_size=row.batch_size,
        boundary=row.boundary,
        baseline_p50_ms=old.p50_ms if old else None,
        candidate_p50_ms=new.p50_ms if new else None,
        **found,
    )


def _pair_rows(
    old: Sequence[BenchRow], new: Sequence[BenchRow]
) -> list[tuple[BenchRow | None, BenchRow | None]]:
    """Rows of the same key paired in their order, the candidate's order first."""
    waiting: dict[tuple[str, str, int, str], list[BenchRow]] = defaultdict(list)
    for row in old:
        waiting[row.key].append(row)
    pairs: list[tuple[BenchRow | None, BenchRow | None]] = []
    for row in new:
        pairs.append((waiting[row.key].pop(0) if waiting[row.key] else None, row))
    return pairs + [(row, None) for rows in waiting.values() for row in rows]
