"""What stands behind a run's figures, and what changed since the last comparable run."""

from pathlib import Path
from typing import Any

from opslib.core.errors import InputError
from opslib.ops import find_records
from opslib.runs.catalogue import RunRow, drop_ahead, scan_runs, values_digest
from opslib.runs.run_record import RunChange, RunRecord
from opslib.runs.trends import SHARES
from opslib.telling.scraps import Scrap

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
    for name, part in (("model", record.get("model")), ("images", record.get("inputs"))):
        if isinstance(part, dict) and "sha256" in part:
            what = part.get("name", "") if name == "model" else f"{part.get('count')} files"
            found[name] = f"{what} (sha256 {str(part['sha256'])[:12]}…)"
    rows = record.get("rows")
    if isinstance(rows, list):
        providers = {row.get("provider") for row in rows if isinstance(row, dict)} - {None}
        if providers:
            found["providers"] = ", ".join(sorted(map(str, providers)))
    if isinstance(record.get("seed"), int):
        found["seed"] = str(record["seed"])
    return found


def find_change(root: Path, run: RunRecord, folder: Path) -> RunChange | None:
    """Return what changed since the newest comparable run below `root`, or None without one.

    Comparable is a finished run of the same notebook with the same parameters on the same host.
    Bench records are compared row by row with a test; other figures are named as they are.
    """
    if run.status != "finished" or run.lineage is None:
        return None
    digest = values_digest(run.parameters)
    for row in drop_ahead(scan_runs(root)):
        same = row.notebook == run.notebook and row.values_digest == digest
        if same and row.finished and row.host_fingerprint == run.lineage.host_fingerprint:
            try:
                return _change_since(root, row, run, folder)
            except InputError:  # written by another version, or damaged: an older one may do
                continue
    return None


def _change_since(root: Path, row: RunRow, run: RunRecord, folder: Path) -> RunChange | None:
    previous = RunRecord.read(root / row.record_path)
    kept = find_records(run.record) if run.record and previous.record else None
    counts = dict.fromkeys(_CHANGES, 0)
    if kept is not None and kept.compare is not None:
        old = kept.read((root / row.record_path).parent / str(previous.record))
        comparison = kept.compare(old, kept.read(folder / str(run.record)))
        summary = comparison.summary
        counts = {name: comparison.count(word) for name, word in _CHANGES.items()}
    else:
        summary = _figures_change(previous.key_figures, run.key_figures)
    if not summary:
        return None
    return RunChange(against_id=row.id, against_path=row.href, summary=summary, **counts)


def _figures_change(old: tuple[Scrap, ...], new: tuple[Scrap, ...]) -> str:
    before = {scrap.name: scrap.value for scrap in old}
    parts = []
    for scrap in new:
        whole = before.get(scrap.name) or scrap.unit in SHARES
        if scrap.better is None or scrap.name not in before or not whole:
            continue
        label = scrap.label or scrap.name.replace("_", " ")
        if scrap.unit in SHARES:
            change = f"{scrap.value - before[scrap.name]:+.2f} points"
        else:
            change = f"{100 * (scrap.value / before[scrap.name] - 1):+.1f} %"
        parts.append(f"{label} {change}".replace("-", "−"))
    return ", ".join(parts[:MAX_NAMED_FIGURES]) + (" (not tested)" if parts else "")
