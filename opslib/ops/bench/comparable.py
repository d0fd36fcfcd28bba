"""Which runs of a benchmark may be held against each other, and what changed between them."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from opslib.core.language import mark, tr, tr_many
from opslib.ops.bench.record import BenchRecord, BenchRow
from opslib.timing.between import FEWEST_RUNS, Level, find_level

MIN_BLOCKS = 2
RUNTIMES = {"onnx": ("onnxruntime", "onnxruntime-gpu"), "torch": ("torch",)}


@dataclass(frozen=True)
class Held:
    """A row, or rows of one engine and boundary taken together, and the figures before it: those
    of each earlier run by its place, as (logarithm of the ratio, its squared standard error).
    `degrees` of freedom has the error of the figure itself."""

    rows: tuple[BenchRow, ...]
    figure: tuple[float, float]
    degrees: float
    before: Mapping[int, tuple[float, float]]
    p50_before_ms: float | None
    changed: Mapping[str, str]

    @cached_property
    def level(self) -> Level:
        """Where the figure lay before."""
        return find_level(*zip(*self.before.values(), strict=True))


def hold(
    new: BenchRecord, row: BenchRow, earlier: Sequence[BenchRecord], across_models: bool
) -> Held | str:
    """Return the row with the runs before it, or why there are none."""
    if row.relative is None:
        return row.reason or row.status
    conditions = list_conditions(new, row)
    alike: dict[int, BenchRow] = {}
    others: dict[str, dict[int, BenchRow]] = defaultdict(dict)
    refused = None
    for at, record in enumerate(earlier):
        reason = _refuse(record, new, row)
        match = next((one for one in record.rows if one.key == row.key), None)
        if reason or match is None or match.relative is None:
            refused = refused or reason
            continue
        its = list_conditions(record, match)
        if its == conditions:
            alike[at] = match
        elif across_models or its["model"] == conditions["model"]:
            others[json.dumps(its)][at] = match
        else:
            refused = refused or tr(
                "models differ ({old} → {new})", old=its["model"], new=conditions["model"]
            )
    changed: dict[str, str] = {}
    chosen = alike
    if len(alike) < FEWEST_RUNS:
        text, chosen = next(
            (one for one in others.items() if len(one[1]) >= FEWEST_RUNS), ("{}", alike)
        )
        changed = {
            name: f"{was} → {conditions[name]}"
            for name, was in json.loads(text).items()
            if was != conditions.get(name)
        }
    if len(chosen) < FEWEST_RUNS:
        few = tr_many(
            "{count} comparable run before it, {least} are needed",
            "{count} comparable runs before it, {least} are needed",
            len(alike),
            least=FEWEST_RUNS,
        )
        return refused or few if not alike else few
    known = [one.p50_ms for one in chosen.values() if one.p50_ms]
    before = {at: one.log_ratio for at, one in chosen.items()}
    p50_ms = statistics.median(known) if known else None
    return Held((row,), row.log_ratio, row.ratio_degrees, before, p50_ms, changed)


def _refuse(old: BenchRecord, new: BenchRecord, row: BenchRow) -> str | None:
    """Why no row of an older record can be held beside this one, whatever its conditions."""
    if reason := refuse_records(old, new):
        return reason
    if old.reference_sha256 != new.reference_sha256:
        return tr("no run before it was held against the same reference network")
    images = old.inputs.sha256 == new.inputs.sha256
    return None if images or row.boundary == "inference" else tr("the images differ")


def list_conditions(record: BenchRecord, row: BenchRow) -> dict[str, str]:
    """Return by name what may change from run to run and is then told as what it is."""
    model = record.model_of(row.engine)
    versions = record.lineage.versions
    names = [name for name in RUNTIMES[row.engine] if name in versions]
    drivers = {gpu.driver for gpu in record.lineage.host.gpus}
    return {
        mark("model"): model.sha256[:12] if model else "unknown",
        **{name: versions[name] for name in names[:1]},
        mark("driver"): ", ".join(sorted(drivers)) or "none",
        mark("threads"): str(row.threads),
        mark("options"): ", ".join(f"{name}={value}" for name, value in sorted(row.options.items()))
        or "none",
    }


def refuse_records(old: BenchRecord, new: BenchRecord) -> str | None:
    """Return why no row of the two can be compared, whatever the models, or None."""
    was, now = old.lineage.host, new.lineage.host
    if was.machine != now.machine:
        return tr("hosts differ ({old} and {new})", old=was.label, new=now.label)
    if not was.is_same(now):
        return tr("hosts differ ({old} and {new}, of equal hardware)", old=was.name, new=now.name)
    if old.img_size != new.img_size:
        return tr("image sizes differ ({old} and {new} pixels)", old=old.img_size, new=new.img_size)
    if old.preprocess != new.preprocess:
        return tr("preprocessing differs ({old} and {new})", old=old.preprocess, new=new.preprocess)
    return None


def refuse_model(old: BenchRecord, new: BenchRecord, engine: str) -> str | None:
    """Return that the two ran different models by this engine, or None."""
    was, now = old.model_of(engine), new.model_of(engine)
    same = (was and was.sha256) == (now and now.sha256)
    return None if same else tr("models differ")


def refuse_rows(old: BenchRow | None, new: BenchRow | None, *, related: bool) -> str | None:
    """Return why two rows of one key cannot be compared, or None. `related`: by their ratios, whose
    intervals say how sure they are, and not by milliseconds."""
    if old is None or new is None:
        return tr("only in the candidate") if old is None else tr("only in the baseline")
    for which, row in () if related else ((mark("baseline"), old), (mark("candidate"), new)):
        if row.status != "measured":
            if row.status == "unavailable":
                return tr("unavailable in the {which}", which=tr(which))
            return tr("inconclusive in the {which}", which=tr(which))
        if len(row.block_medians_ms()) < MIN_BLOCKS:
            return tr(
                "fewer than {blocks} blocks in the {which}", blocks=MIN_BLOCKS, which=tr(which)
            )
    if old.threads != new.threads:
        return tr("threads differ ({old} and {new})", old=old.threads, new=new.threads)
    return None if old.options == new.options else tr("session options differ")
