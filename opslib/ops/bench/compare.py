"""Two bench records side by side: what got better, worse, or cannot be told.

A difference counts when a test *and* a minimum effect say so: the 99 % interval of the latency
ratio excludes 1 (Welch's t with Satterthwaite's degrees of freedom on the logarithms of the block
medians) and the ratio lies farther from 1 than 2 % and than both records' own noise floor.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from opslib.core.errors import InputError
from opslib.core.formatting import plural
from opslib.core.records import Part, Record
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.runs.catalogue import RunRow, drop_ahead, scan_runs
from opslib.runs.run_record import RUN_FILE, RunRecord
from opslib.timing.blocks import Boundary

Outcome = Literal["better", "worse", "no measurable change", "not comparable"]
MIN_EFFECT_PCT = 2.0
CONFIDENCE = 0.99
MIN_BLOCKS = 2


class RowComparison(Part):
    """One row of the candidate record against the same row of the baseline. `latency_ratio` is
    candidate / baseline (below 1 is better); `min_effect_pct` the distance from 1 that counted;
    `reason` says why a row is not comparable."""

    engine: str
    provider: str
    batch_size: int
    boundary: Boundary
    outcome: Outcome
    reason: str | None = None
    baseline_p50_ms: float | None = None
    candidate_p50_ms: float | None = None
    latency_ratio: float | None = None
    latency_ratio_ci99: tuple[float, float] | None = None
    min_effect_pct: float | None = None

    @property
    def label(self) -> str:
        """The row in words."""
        where = "inference" if self.boundary == "inference" else "end to end"
        return f"{self.engine} on {self.provider}, batch {self.batch_size}, {where}"

    @property
    def change_pct(self) -> float | None:
        """Change of the latency in percent; negative is faster."""
        return None if self.latency_ratio is None else 100 * (self.latency_ratio - 1)


class RecordComparison(Record):
    """All rows of two bench records, matched by engine, provider, batch size and boundary."""

    schema_name: ClassVar[str] = "record-comparison"

    rows: tuple[RowComparison, ...]

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
            return None if self.rows else "there are no rows"
        return self.rows[0].reason

    @property
    def summary(self) -> str:
        """The comparison as one sentence, the largest change named."""
        if not self.comparable:
            return f"not comparable: {self.reason}"
        parts = []
        for outcome in ("worse", "better"):
            found = [row for row in self.rows if row.outcome == outcome]
            if found:
                row = max(found, key=lambda item: abs(math.log(item.latency_ratio or 1.0)))
                change = row.change_pct or 0.0
                most = f"{abs(change):.1f} % {'slower' if change > 0 else 'faster'}"
                parts.append(f"{plural(len(found), 'row')} {outcome} (most: {row.label} {most})")
        same, other = self.count("no measurable change"), self.count("not comparable")
        if same:
            parts.append(f"{plural(same, 'row')} without a measurable change")
        if other:
            parts.append(f"{plural(other, 'row')} not comparable")
        return ", ".join(parts)


def compare_records(
    baseline: BenchRecord, candidate: BenchRecord, *, across_models: bool = False
) -> RecordComparison:
    """Return how the candidate's latencies differ from the baseline's, row by row. `across_models`:
    compare although the models differ, which is then the point."""
    refusal = _refuse_records(baseline, candidate, across_models)
    floor_pct = max(MIN_EFFECT_PCT, noise_floor_pct(baseline), noise_floor_pct(candidate))
    rows = []
    for old, new in _pair_rows(baseline.rows, candidate.rows):
        reason = refusal or _refuse_rows(old, new)
        if reason is None and old is not None and old.boundary == "end_to_end":
            same = baseline.inputs.sha256 == candidate.inputs.sha256
            reason = None if same else "the images differ"
        if reason is not None or old is None or new is None:
            rows.append(_describe_pair(old, new, outcome="not comparable", reason=reason))
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
    """Return the difference of two means (candidate - baseline) and its interval. Welch (1947):
    unequal variances, degrees of freedom after Satterthwaite (1946)."""
    from scipy.special import stdtrit

    old, new = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    parts = [one.var(ddof=1) / one.size for one in (old, new)]
    difference, variance = float(new.mean() - old.mean()), float(sum(parts))
    if variance == 0:
        return difference, (difference, difference)
    spread = parts[0] ** 2 / (old.size - 1) + parts[1] ** 2 / (new.size - 1)
    reach = float(stdtrit(variance**2 / spread, (1 + confidence) / 2)) * math.sqrt(variance)
    return difference, (difference - reach, difference + reach)


def _compare_rows(old: BenchRow, new: BenchRow, floor_pct: float) -> RowComparison:
    logs = [np.log(row.block_medians_ms()) for row in (old, new)]
    effect, (low, high) = welch_interval(logs[0].tolist(), logs[1].tolist())
    outcome: Outcome = "no measurable change"
    if (low > 0 or high < 0) and abs(effect) >= math.log1p(floor_pct / 100):
        outcome = "worse" if effect > 0 else "better"
    return _describe_pair(
        old,
        new,
        outcome=outcome,
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


def _refuse_records(old: BenchRecord, new: BenchRecord, across_models: bool) -> str | None:
    if old.lineage.host_fingerprint != new.lineage.host_fingerprint:
        return f"hosts differ ({old.lineage.host.label} and {new.lineage.host.label})"
    if not across_models and (old.model and old.model.sha256) != (new.model and new.model.sha256):
        return "models differ"
    if old.img_size != new.img_size:
        return f"image sizes differ ({old.img_size} and {new.img_size} pixels)"
    if old.preprocess != new.preprocess:
        return f"preprocessing differs ({old.preprocess} and {new.preprocess})"
    return None


def _refuse_rows(old: BenchRow | None, new: BenchRow | None) -> str | None:
    if old is None or new is None:
        return "only in the candidate" if old is None else "only in the baseline"
    for which, row in (("baseline", old), ("candidate", new)):
        if row.status != "measured":
            return f"{row.status} in the {which}"
        if len(row.block_medians_ms()) < MIN_BLOCKS:
            return f"fewer than {MIN_BLOCKS} blocks in the {which}"
    if old.threads != new.threads:
        return f"threads differ ({old.threads} and {new.threads})"
    return None if old.options == new.options else "session options differ"


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


def compare_runs(
    baseline: str, candidate: str, root: Path, *, across_models: bool = False
) -> RecordComparison:
    """Return how two runs' bench records differ. `baseline`, `candidate`: a run's id or the end of
    it, its folder, or a bench record's file. Raises InputError: a run is unknown or has no bench
    record."""
    old, new = (BenchRecord.read(find_record(name, root)) for name in (baseline, candidate))
    return compare_records(old, new, across_models=across_models)


def find_check_pair(root: Path, against: str | None = None) -> tuple[Path, Path]:
    """Return the bench records of the last comparable run (or `against`) and of the newest run.
    Raises InputError: there is no finished run with a bench record, or none to hold it against."""
    runs = [row for row in drop_ahead(scan_runs(root)) if row.finished]
    benches = [(row, path) for row in runs if (path := _bench_path(root, row))]
    if not benches:
        raise InputError(
            f"{root}: no finished benchmark to check; make one with `pillops run bench`"
        )
    newest, path = benches[0]
    if against is not None:
        return find_record(against, root), path
    for row, earlier in benches[1:]:
        if (row.notebook, row.host_fingerprint) == (newest.notebook, newest.host_fingerprint):
            return earlier, path
    raise InputError(f"{newest.id}: there is no earlier run of {newest.notebook} on this host")


def find_record(name: str, root: Path) -> Path:
    """Return the bench record that a run's id, its folder or a file's path means. Raises
    InputError: nothing is called that, or the run has no bench record."""
    path = Path(name)
    if path.is_file() and path.name != RUN_FILE and path.suffix == ".json":
        return path
    folder = path if path.is_dir() else path.parent
    if (folder / RUN_FILE).is_file() and path.exists():
        run = RunRecord.read(folder / RUN_FILE)
        if run.record:
            return folder / run.record
        raise InputError(f"{name}: this run has no bench record")
    matches = [row for row in scan_runs(root) if row.id == name or row.id.endswith(name)]
    if len(matches) != 1:
        what = "several runs are" if matches else "no run is"
        raise InputError(f"{name}: {what} called that in {root}; give an id, a folder or a record")
    found = _bench_path(root, matches[0])
    if found is None:
        raise InputError(f"{matches[0].id}: this run has no bench record")
    return found


def _bench_path(root: Path, row: RunRow) -> Path | None:
    if row.record is None or not row.record.startswith("bench"):
        return None
    path = (root / row.record_path).parent / row.record
    return path if path.is_file() else None
