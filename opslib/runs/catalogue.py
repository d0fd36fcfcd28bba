"""All runs below a report folder, newest first, read once and remembered by date and size."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from opslib.core.clock import parse_moment, part_ahead
from opslib.core.errors import InputError
from opslib.core.files import sha256_bytes
from opslib.core.formatting import shorten
from opslib.core.language import mark, tr
from opslib.core.records import Part
from opslib.core.served import ServedNote
from opslib.runs.html import shown_figures
from opslib.runs.run_record import RUN_FILE, RunRecord
from opslib.telling.scraps import Scrap

CACHE_FILE = ".catalogue.json"
SIDE_SUFFIX = ".run.json"
CITED_FOLDER = "cited"
MAX_SENTENCE = 160
MAX_FIGURES = 2


class RunRow(Part):
    """One run in a few words.

    `record_path` and `href` are relative to the report folder; `figures` are ready texts;
    `asked` names the parameters that were changed;
    `measured` are the figures that have a better direction, and so a trend;
    `host_name` is what its host is called, where it was pulled from one or says it itself.
    """

    id: str
    record_path: str
    href: str
    notebook: str
    title: str
    started: str
    word: str
    tone: str
    sentence: str
    figures: tuple[str, ...] = ()
    change: str | None = None
    change_tone: str | None = None
    finished: bool = False
    succeeded: bool = False
    host_fingerprint: str | None = None
    host: str | None = None
    hardware: str | None = None
    asked: str = ""
    machine: str | None = None
    host_name: str | None = None
    values_digest: str | None = None
    record: str | None = None
    served: ServedNote | None = None
    measured: tuple[Scrap, ...] = ()


class _Kept(Part):
    key: tuple[int, int]
    row: RunRow


class _Cache(Part):
    version: Literal[6] = 6
    runs: dict[str, _Kept] = {}


def scan_runs(root: Path) -> list[RunRow]:
    """Return every run below `root` in the order of `newest_first`; a run cited elsewhere counts
    once.

    Plain notebooks are not looked at here; `adopt.adopt_notebooks` gives them a record first.
    """
    cache = _read_cache(root)
    fresh: dict[str, _Kept] = {}
    rows: dict[str, RunRow] = {}
    for entry in visible_files(root):
        if entry.name != RUN_FILE and not entry.name.endswith(SIDE_SUFFIX):
            continue
        path, facts = Path(entry.path), entry.stat()
        relative, key = path.relative_to(root).as_posix(), (facts.st_mtime_ns, facts.st_size)
        known = cache.runs.get(relative)
        if known is None or known.key != key:
            known = _Kept(key=key, row=_read_row(path, relative))
        fresh[relative] = known
        kept = rows.get(known.row.id)
        if kept is None or kept.record_path.startswith(f"{CITED_FOLDER}/"):
            rows[known.row.id] = known.row
    if fresh != cache.runs:
        with suppress(OSError, ValueError):
            (root / CACHE_FILE).write_text(_Cache(runs=fresh).model_dump_json(), encoding="utf-8")
    return newest_first(rows.values())


def newest_first(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return these runs, the newest first; those that are dated after now come last."""
    dated = sorted(rows, key=lambda row: (row.started, row.id), reverse=True)
    past, ahead = part_ahead(dated, lambda row: parse_moment(row.started))
    return past + ahead


def drop_ahead(rows: Iterable[RunRow]) -> list[RunRow]:
    """Return the runs that are not dated after now: the others are nobody's newest."""
    return part_ahead(rows, lambda row: parse_moment(row.started))[0]


def name_hosts(rows: Iterable[RunRow]) -> dict[str, str | None]:
    """Return what the host of each run is called, by the run's id.

    A run that tells no name is of the one host of its hardware that has one; where there are
    several of them it stays without, and is of none of them.
    """
    runs = list(rows)
    names: dict[str | None, set[str | None]] = {}
    for row in runs:
        names.setdefault(row.machine, set()).add(row.host_name)
    return {row.id: row.host_name or _only(names[row.machine]) for row in runs}


def runs_of_host(rows: Iterable[RunRow], machine: str | None, name: str | None) -> list[RunRow]:
    """Return the runs of one host, by its hardware and its name, in their order."""
    here = [row for row in rows if row.machine == machine]
    only = _only({name, *(row.host_name for row in here)})
    return [row for row in here if (row.host_name or only) == (name or only)]


def _only(names: Set[str | None]) -> str | None:
    known = names - {None}
    return next(iter(known)) if len(known) == 1 else None


def values_digest(values: dict[str, Any]) -> str:
    """Return a digest that is equal for equal parameters."""
    return sha256_bytes(json.dumps(values, sort_keys=True).encode())[:12]


def visible_files(root: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield every file below `root` that is not hidden and lies in no hidden folder."""
    try:
        entries = list(os.scandir(root))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from visible_files(entry.path)
        elif _is_file(entry):
            yield entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _read_row(path: Path, relative: str) -> RunRow:
    try:
        return _make_row(RunRecord.read(path), relative, _read_marker(path))
    except (InputError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        return broken_row(relative, tr("Its record cannot be read: {reason}", reason=reason))


def marker_of(record: Path) -> Path:
    """Return the hidden file beside a record that names the host it was pulled from."""
    return record.with_name(f".{record.name}.host")


def _read_marker(record: Path) -> str | None:
    try:
        return marker_of(record).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def parse_row(data: bytes, relative: str) -> RunRow:
    """Return the row of a run from the bytes of its record, `relative` to the report folder; it
    says so where they are none."""
    try:
        return _make_row(RunRecord.model_validate_json(data), relative)
    except (ValueError, TypeError, RecursionError) as error:
        return broken_row(relative, tr("Its record cannot be read: {reason}", reason=error))


def broken_row(relative: str, reason: str) -> RunRow:
    """Return the row of a run or notebook that cannot be read."""
    folder = relative.removesuffix(RUN_FILE).rstrip("/") or relative
    name = folder.rpartition("/")[2]
    moment = re.match(r"(\d{4}-\d\d-\d\d)/(\d\d)(\d\d)(\d\d)", relative)
    return RunRow(
        id=relative,
        record_path=relative,
        href=relative,
        notebook=name,
        title=name,
        started="{}T{}:{}:{}Z".format(*moment.groups()) if moment else "",
        word=mark("Broken"),
        tone="fail",
        sentence=shorten(reason, MAX_SENTENCE),
    )


def _make_row(run: RunRecord, relative: str, pulled_from: str | None = None) -> RunRow:
    change, host = run.change, run.lineage.host if run.lineage else None
    if host is not None and pulled_from is not None:
        host = host.model_copy(update={"name": pulled_from})
    tone = None
    if change is not None:
        tone = "worse" if change.worse else "better" if change.better else None
    alike = ("id", "notebook", "title", "started", "word", "tone", "succeeded", "record", "served")
    return RunRow(
        **{name: getattr(run, name) for name in alike},
        record_path=relative,
        href=relative.removesuffix(relative.rpartition("/")[2]) + run.report_name,
        sentence=shorten(run.sentence, MAX_SENTENCE),
        figures=tuple(
            f"{label}: {text}{f' {unit}' if unit else ''}"
            for label, text, unit in shown_figures(run.key_figures[:MAX_FIGURES])
        ),
        change=change.summary if change else None,
        change_tone=tone,
        finished=run.status == "finished",
        host_fingerprint=run.lineage.host_fingerprint if run.lineage else None,
        host=host.title if host else None,
        hardware=host.label if host else None,
        asked=shorten(", ".join(f"{k}={run.parameters[k]}" for k in run.changed_parameters), 80),
        machine=host.machine if host else None,
        host_name=host.name if host else pulled_from,
        measured=tuple(one for one in run.key_figures if one.better and _is_finite(one.value)),
        values_digest=values_digest(run.parameters),
    )


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _read_cache(root: Path) -> _Cache:
    try:
        return _Cache.model_validate_json((root / CACHE_FILE).read_bytes())
    except (OSError, ValidationError):
        return _Cache()
