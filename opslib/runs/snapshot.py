"""The measured tables of the documents, rewritten from the newest successful runs.

A table stands between `<!-- snapshot:bench -->` and `<!-- /snapshot -->`. The runs that it cites
are kept in `<report folder>/cited/<run id>/`, small enough for git, so that no link dangles.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from opslib.core.changes import change_file
from opslib.core.errors import InputError, StorageError, storage_errors
from opslib.core.plans import Action, Plan
from opslib.ops import OPERATIONS, find_records
from opslib.runs.catalogue import CITED_FOLDER, RunRow, drop_ahead, scan_runs
from opslib.runs.cite import cite_run, is_cited, remove_citation
from opslib.runs.run_record import RUN_FILE, RunRecord
from opslib.telling.operation import Records

_OPENING = re.compile(r"<!-- snapshot:([\w-]+) -->")
_ENDING = "<!-- /snapshot -->"
_LIKE_A_MARKER = re.compile(r"<!?\s*-+\s*/?\s*snapshot\b", flags=re.IGNORECASE)
_CODE_SPAN = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Block:
    """A marked table of a document: its name and the lines of its two markers, counted from 0."""

    name: str
    opening: int
    ending: int


@dataclass(frozen=True)
class CitedRun:
    """A run that a table is made from: where it lies, how it went, and its operation's record."""

    row: RunRow
    run: RunRecord
    record: Any


@dataclass(frozen=True)
class Document:
    """A document as it was read: where it lies, its text and its marked tables."""

    path: Path
    text: str
    blocks: list[Block]


def plan_snapshot(paths: Sequence[Path], root: Path, *, others: bool = False) -> Plan:
    """Return what must be done for the tables of all documents to show the newest successful runs.
    `others`: there are other documents, so that none of the cited runs is removed.

    An empty plan means that they do. No table is written before every document was found good.

    Raises:
        InputError: a document is missing, has no marked table, a marker is malformed or has no
            partner, a table is unknown, or there is no successful run to make it from.
    """
    known = {name: one.records for name, one in OPERATIONS.items() if one.records is not None}
    documents = [_read(path, known) for path in paths]
    runs: dict[str, list[CitedRun]] = {}
    for name in dict.fromkeys(block.name for one in documents for block in one.blocks):
        runs[name] = _newest_runs(root, known[name])
        if not runs[name]:
            raise InputError(f"{root}: no successful run for the table {name!r}; make one first")
    cited = {run.row.id: run for several in runs.values() for run in several}
    actions = _cite(root, cited)
    above = os.path.commonpath([path.parent for path in paths])
    for document in documents:
        lines = document.text.split("\n")
        for block in reversed(document.blocks):
            table = _render(known[block.name], runs[block.name], document.path, root)
            ending = "\r" if lines[block.opening].endswith("\r") else ""
            lines[block.opening + 1 : block.ending] = [row + ending for row in table.split("\n")]
        fresh = "\n".join(lines)
        if fresh != document.text:
            write = partial(_replace, document.path, document.text, fresh)
            why = "its tables differ from the newest runs"
            target = document.path.relative_to(above).as_posix()
            actions.append(Action("rewrite", target, why, write))
    # Chained: no document links to a run that could not be cited, or to one that was removed.
    actions += [] if others else _remove_uncited(root, cited)
    return Plan("snapshot", tuple(actions), chained=True)


def _read(path: Path, known: Iterable[str]) -> Document:
    if not path.is_file():
        raise InputError(f"{path}: no such document")
    try:
        with storage_errors(f"read {path}"):
            text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text") from error
    blocks = find_blocks(path, text)
    if not blocks:
        raise InputError(f"{path}: has no <!-- snapshot:bench --> … <!-- /snapshot --> block")
    unknown = sorted({block.name for block in blocks} - set(known))
    if unknown:
        raise InputError(f"{path}: table {unknown[0]!r} is unknown; known: {', '.join(known)}")
    return Document(path, text, blocks)


def find_blocks(document: Path, text: str) -> list[Block]:
    """Return the marked tables of a document's text, in order.

    Raises:
        InputError: a marker is malformed or has no partner; the message names its line.
    """
    blocks: list[Block] = []
    name, opening = "", -1
    for number, line in enumerate(text.split("\n")):
        where = f"{document}: line {number + 1}"
        marker = line.strip()
        match = _OPENING.fullmatch(marker)
        if match and opening >= 0:
            raise _unended(document, name, opening)
        if match:
            name, opening = match[1], number
        elif marker == _ENDING and opening >= 0:
            blocks.append(Block(name, opening, number))
            opening = -1
        elif marker == _ENDING:
            raise InputError(f"{where}: {_ENDING} ends no block; expected an opening before it")
        elif _LIKE_A_MARKER.search(_CODE_SPAN.sub("", line)):
            inside = f" in the block {name!r}" if opening >= 0 else ""
            raise InputError(
                f"{where}: malformed marker {marker[:60]!r}{inside}; expected "
                f"<!-- snapshot:bench --> or {_ENDING}, alone on its line"
            )
    if opening >= 0:
        raise _unended(document, name, opening)
    return blocks


def _unended(document: Path, name: str, opening: int) -> InputError:
    return InputError(f"{document}: line {opening + 1}: the block {name!r} has no {_ENDING}")


def _cite(root: Path, cited: dict[str, CitedRun]) -> list[Action]:
    return [
        Action(
            "cite",
            f"{CITED_FOLDER}/{run_id}",
            "the document links to it",
            partial(cite_run, (root / run.row.record_path).parent, root),
        )
        for run_id, run in cited.items()
        if not is_cited(root, run_id)
    ]


def _remove_uncited(root: Path, cited: dict[str, CitedRun]) -> list[Action]:
    folder = root / CITED_FOLDER
    old = sorted(filter(_is_citation, folder.iterdir())) if folder.is_dir() else []
    return [
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


def _is_citation(folder: Path) -> bool:
    """Whether a folder was made by citing a run; nothing else is ever removed."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        run = RunRecord.read(folder / RUN_FILE)
    except InputError:
        return False
    return run.id == folder.name and not any(path.is_dir() for path in folder.iterdir())


def _replace(document: Path, old: str, fresh: str) -> None:
    def change(before: bytes | None) -> bytes:
        if before != old.encode():
            raise StorageError("it changed after the plan was made")
        return fresh.encode()

    change_file(document, change)


def _newest_runs(root: Path, kept: Records) -> list[CitedRun]:
    """The newest successful run for each host: one with the notebook's own parameters if any."""
    best: dict[str, tuple[bool, CitedRun]] = {}
    for row in drop_ahead(scan_runs(root)):
        if not row.succeeded or row.record is None or find_records(row.record) is not kept:
            continue
        path = root / row.record_path
        run = RunRecord.read(path)
        usual = not run.changed_parameters
        host = row.host_fingerprint or ""
        if host in best and (best[host][0] or not usual):
            continue
        best[host] = (usual, CitedRun(row, run, kept.read(path.parent / row.record)))
    return sorted((run for _, run in best.values()), key=_host)


def _render(kept: Records, runs: list[CitedRun], document: Path, root: Path) -> str:
    columns: list[str] = []
    lines: list[str] = []
    for run in runs:
        columns, rows = kept.table(run.record)
        lineage = run.record.lineage
        page = root / CITED_FOLDER / run.row.id / run.run.report_name
        href = Path(os.path.relpath(page, document.parent)).as_posix()
        link = f"[{run.run.started[:10]}]({href})"
        commit = f"`{lineage.git_sha}`{' + changes' if lineage.git_dirty else ''}"
        lines += [_line([_host(run), *row, link, commit]) for row in rows]
    head = ["Host", *columns, "Run", "Commit"]
    return "\n".join([_line(head), f"|{'---|' * len(head)}", *lines])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _host(run: CitedRun) -> str:
    return str(run.record.lineage.host.label)
