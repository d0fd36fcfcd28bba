"""What stands behind a run's figures, and what changed against the comparable runs before it."""

from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from opslib.core.errors import InputError
from opslib.core.language import mark, tr
from opslib.ops import find_records
from opslib.runs.catalogue import RunRow, drop_ahead, runs_of_host, scan_runs, values_digest
from opslib.runs.run_record import RunChange, RunRecord
from opslib.runs.trends import SHARES
from opslib.telling.operation import Records
from opslib.telling.scraps import Scrap
from opslib.timing.between import MOST_RUNS

MAX_NAMED_FIGURES = 2
_CHANGES = {
    "better": "better",
    "worse": "worse",
    "unchanged": "no measurable change",
    "not_comparable": "not comparable",
}


def read_evidence(record: Any) -> dict[str, str]:
    """Return the model, images, providers in force and seed that an operation's record names."""
    if not isinstance(record, dict):
        return {}
    found = {}
    for name, part in (
        (mark("model"), record.get("model")),
        (mark("images"), record.get("inputs")),
    ):
        if isinstance(part, dict) and "sha256" in part:
            what = part.get("name", "") if name == "model" else f"{part.get('count')} files"
            found[name] = f"{what} (sha256 {str(part['sha256'])[:12]}…)"
    rows = record.get("rows")
    if isinstance(rows, list):
        providers = {row.get("provider") for row in rows if isinstance(row, dict)} - {None}
        if providers:
            found[mark("providers")] = ", ".join(sorted(map(str, providers)))
    if isinstance(record.get("seed"), int):
        found[mark("seed")] = str(record["seed"])
    return found


def find_change(root: Path, run: RunRecord, folder: Path) -> RunChange | None:
    """Return what changed against the comparable runs below `root`, or None without one.

    Comparable is a finished run of the same notebook with the same parameters on the same host.
    Bench records are held against all of them, row by row; other figures are named beside those of
    the newest.
    """
    if run.status != "finished" or run.lineage is None:
        return None
    digest, host = values_digest(run.parameters), run.lineage.host
    alike = [
        row
        for row in runs_of_host(drop_ahead(scan_runs(root)), host.machine, host.name)
        if row.notebook == run.notebook and row.values_digest == digest
        if row.finished
    ]
    if not alike:
        return None
    kept = find_records(run.record) if run.record else None
    if kept is not None and kept.judge is not None:
        return _judge(root, alike, kept, folder / str(run.record))
    for row in alike:
        with suppress(InputError):  # written by another version, or damaged: an older one may do
            previous = RunRecord.read(root / row.record_path)
            summary = _figures_change(previous.key_figures, run.key_figures)
            return _change(row, summary, dict.fromkeys(_CHANGES, 0)) if summary else None
    return None


def _judge(root: Path, alike: list[RunRow], kept: Records, path: Path) -> RunChange | None:
    found: list[tuple[RunRow, Any]] = []
    for row in alike:
        if (
            row.record
            and PurePath(row.record).name.startswith(kept.files)
            and len(found) < MOST_RUNS
        ):
            with suppress(InputError):  # deleted since, damaged, or written by another version
                found.append((row, kept.read((root / row.record_path).parent / row.record)))
    if not found or kept.judge is None:
        return None
    comparison = kept.judge(kept.read(path), [record for _, record in found])
    counts = {name: comparison.count(word) for name, word in _CHANGES.items()}
    if not comparison.summary:
        return None
    change = _change(found[0][0], comparison.summary, counts)
    return change.model_copy(update={"attribution": comparison.attribution})


def _change(row: RunRow, summary: str, counts: dict[str, int]) -> RunChange:
    named = {"against_id": row.id, "against_path": row.href, "summary": summary}
    return RunChange.model_validate(named | counts)


def _figures_change(old: tuple[Scrap, ...], new: tuple[Scrap, ...]) -> str:
    before = {scrap.name: scrap.value for scrap in old}
    parts = []
    for scrap in new:
        whole = before.get(scrap.name) or scrap.unit in SHARES
        if scrap.better is None or scrap.name not in before or not whole:
            continue
        label = scrap.label or scrap.name.replace("_", " ")
        if scrap.unit in SHARES:
            change = tr("{change:+.2f} points", change=scrap.value - before[scrap.name])
        else:
            change = f"{100 * (scrap.value / before[scrap.name] - 1):+.1f} %"
        parts.append(f"{label} {change}".replace("-", "−"))
    told = ", ".join(parts[:MAX_NAMED_FIGURES])
    return tr("{changes} (not tested)", changes=told) if told else ""
