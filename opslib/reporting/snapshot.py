"""The measured tables of a document, rewritten from the newest successful runs.

A table stands between `<!-- snapshot:bench -->` and `<!-- /snapshot -->`. The runs that it cites
are kept in `<report folder>/cited/<run id>/`, small enough for git, so that no link dangles.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from opslib.core.errors import InputError, storage_errors
from opslib.core.files import write_text_atomic
from opslib.core.plans import Action, Plan
from opslib.reporting.catalogue import CITED_FOLDER, RunRow, scan_runs
from opslib.reporting.cite import cite_run, is_cited, remove_citation
from opslib.reporting.run_record import RunRecord
from opslib.reporting.tables import TABLES, Table

_BLOCK = re.compile(
    r"(<!-- snapshot:(?P<name>[\w-]+) -->\n).*?(<!-- /snapshot -->)", flags=re.DOTALL
)


@dataclass(frozen=True)
class CitedRun:
    """A run that a table is made from: where it lies, how it went, and its operation's record."""

    row: RunRow
    run: RunRecord
    record: Any


def plan_snapshot(document: Path, root: Path) -> Plan:
    """Return what must be done for the document's tables to show the newest successful runs.

    An empty plan means that they do.

    Raises:
        InputError: the document has no marked table, names one that is unknown, or there is no
            successful run to make it from.
    """
    text = _read(document)
    names = [match["name"] for match in _BLOCK.finditer(text)]
    if not names:
        raise InputError(f"{document}: has no <!-- snapshot:bench --> … <!-- /snapshot --> block")
    unknown = sorted(set(names) - set(TABLES))
    if unknown:
        raise InputError(f"{document}: table {unknown[0]!r} is unknown; known: {', '.join(TABLES)}")
    tables, cited = {}, {}
    for name in dict.fromkeys(names):
        runs = _newest_runs(root, TABLES[name])
        if not runs:
            raise InputError(f"{root}: no successful run for the table {name!r}; make one first")
        tables[name] = _render(TABLES[name], runs, document, root)
        cited.update({run.row.id: run for run in runs})
    return Plan("snapshot", (*_citations(root, cited), *_rewriting(document, text, tables)))


def _citations(root: Path, cited: dict[str, CitedRun]) -> list[Action]:
    actions = [
        Action(
            "cite",
            f"{CITED_FOLDER}/{run_id}",
            "the document links to it",
            partial(cite_run, (root / run.row.record_path).parent, root),
        )
        for run_id, run in cited.items()
        if not is_cited(root, run_id)
    ]
    folder = root / CITED_FOLDER
    old = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    actions += [
        Action(
            "remove",
            f"{CITED_FOLDER}/{path.name}",
            "no table shows it any more",
            partial(remove_citation, root, path.name),
            frees_bytes=sum(file.stat().st_size for file in path.iterdir()),
        )
        for path in old
        if path.name not in cited
    ]
    return actions


def _rewriting(document: Path, text: str, tables: dict[str, str]) -> list[Action]:
    fresh = _BLOCK.sub(lambda match: f"{match[1]}{tables[match['name']]}{match[3]}", text)
    if fresh == text:
        return []
    write = partial(write_text_atomic, document, fresh)
    return [Action("rewrite", document.name, "its tables differ from the newest runs", write)]


def _newest_runs(root: Path, table: Table) -> list[CitedRun]:
    """The newest successful run for each host: one with the notebook's own parameters if any."""
    best: dict[str, tuple[bool, CitedRun]] = {}
    for row in scan_runs(root):
        if (
            not row.succeeded
            or row.record is None
            or not row.record.startswith(table.record_prefix)
        ):
            continue
        path = root / row.record_path
        run = RunRecord.read(path)
        usual = not run.changed_parameters
        host = row.host_fingerprint or ""
        if host in best and (best[host][0] or not usual):
            continue
        best[host] = (usual, CitedRun(row, run, table.read(path.parent / row.record)))
    return sorted((run for _, run in best.values()), key=lambda run: _host(run))


def _render(table: Table, runs: list[CitedRun], document: Path, root: Path) -> str:
    columns: list[str] = []
    lines: list[str] = []
    for run in runs:
        columns, rows = table.tell(run.record)
        lineage = run.record.lineage
        link = f"[{run.run.started[:10]}]({_link(run, document, root)})"
        commit = f"`{lineage.git_sha}`{' + changes' if lineage.git_dirty else ''}"
        lines += [_line([_host(run), *row, link, commit]) for row in rows]
    head = ["Host", *columns, "Run", "Commit"]
    return "\n".join([_line(head), f"|{'---|' * len(head)}", *lines]) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _host(run: CitedRun) -> str:
    return str(run.record.lineage.host.label)


def _link(run: CitedRun, document: Path, root: Path) -> str:
    target = root / CITED_FOLDER / run.row.id / run.run.report_name
    return Path(os.path.relpath(target, document.parent)).as_posix()


def _read(document: Path) -> str:
    if not document.is_file():
        raise InputError(f"{document}: no such document")
    with storage_errors(f"read {document}"):
        return document.read_text(encoding="utf-8")
