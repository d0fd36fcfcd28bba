"""`reports/index.html`: the newest answer of each notebook, then every run, newest first."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from opslib.core.clock import ASK
from opslib.core.files import write_text_atomic
from opslib.core.formatting import plural
from opslib.runs.adopt import adopt_notebooks
from opslib.runs.catalogue import RunRow, drop_ahead, newest_first, scan_runs
from opslib.runs.html import content_policy, read_template
from opslib.runs.job import sweep_abandoned

INDEX_FILE = "index.html"
MAX_PAGE_ROWS = 1000


def build_index(root: Path) -> Path:
    """Write `index.html` of a report folder and return its path.

    Runs whose runner was killed are given their names and notebooks that plain papermill wrote
    there are adopted first. Only what is new is read.

    Raises:
        StorageError: the folder cannot be written.
    """
    sweep_abandoned(root)
    broken = adopt_notebooks(root)
    rows = newest_first([*scan_runs(root), *broken])
    path = root / INDEX_FILE
    write_text_atomic(path, render_index(rows))
    return path


def render_index(rows: list[RunRow]) -> str:
    """Return the index page of these runs, newest first."""
    css = _squeeze(read_template("report.css") + read_template("list.css"))
    script = read_template("list.js")
    shown = rows[:MAX_PAGE_ROWS]
    policy = content_policy(css, script)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><title>PillSnap Ops reports</title>\n'
        f'<link rel="icon" href="data:,"><style>{css}</style></head>\n<body>\n'
        '<a class="skip" href="#runs">Skip to all runs</a>\n'
        '<header class="wrap"><h1>PillSnap Ops reports</h1>\n'
        f'<p class="lead">{_lead(rows)}</p></header>\n<main class="wrap">\n'
        f"{_latest(rows)}{_table(shown, len(rows))}</main>\n<script>{script}</script>\n"
        "</body></html>\n"
    )


def _lead(rows: list[RunRow]) -> str:
    if not rows:
        return "No runs yet. Make one with <code>pillops run bench</code>."
    unfinished = sum(not row.finished for row in rows)
    tail = f", {unfinished:,} of them did not finish" if unfinished else ""
    past = drop_ahead(rows)
    newest = f" Newest: {_when(past[0])} UTC." if past else ""
    count = len(rows) - len(past)
    ahead = f" {plural(count, 'run')} dated after now, listed last: {ASK}" if count else ""
    return f"{plural(len(rows), 'run')}{tail}.{newest}{ahead}"


def _latest(rows: list[RunRow]) -> str:
    newest: dict[str, RunRow] = {}
    for row in drop_ahead(rows):
        newest.setdefault(row.notebook, row)
    if not newest:
        return ""
    cards = "\n".join(_card(newest[name]) for name in sorted(newest))
    return f'<h2>The newest answer of each notebook</h2>\n<ul class="latest">\n{cards}\n</ul>\n'


def _card(row: RunRow) -> str:
    figures = f'<p class="meta">{escape(" · ".join(row.figures))}</p>' if row.figures else ""
    tone = {"worse": " w", "better": " b"}.get(row.change_tone or "", "")
    since = f"Since the last: {escape(row.change)}" if row.change else ""
    change = f'<p class="meta{tone}">{since}</p>' if since else ""
    return (
        f'<li class="{row.tone}"><h3><a href="{quote(row.href)}">{escape(row.title)}</a>'
        f"{_badge(row)}</h3><p>{escape(row.sentence)}</p>{figures}{change}"
        f'<p class="meta"><code>{escape(row.notebook)}</code> · {_when(row)} UTC</p></li>'
    )


def _table(rows: list[RunRow], total: int) -> str:
    if not rows:
        return ""
    words = sorted({row.word for row in rows})
    options = "".join(f"<option>{escape(word)}</option>" for word in words)
    body = "\n".join(map(_row, rows))
    older = (
        f"<p>{plural(total - len(rows), 'older run')} not listed.</p>" if total > len(rows) else ""
    )
    return (
        '<h2>All runs</h2>\n<div class="bar" role="search" hidden><label>Find in runs '
        '<input id="find" type="search" autocomplete="off" placeholder="notebook, date, words">'
        "</label>"
        f'<label>Verdict <select id="kind"><option value="">all</option>{options}'
        '<option value="-">did not finish</option></select></label>'
        '<output id="count" for="find kind"></output></div>\n'
        '<div class="scroll" role="region" aria-label="All runs" tabindex="0">'
        '<table id="runs"><thead><tr><th scope="col">Started (UTC)</th><th scope="col">Report</th>'
        '<th scope="col">Verdict</th><th scope="col">Finding</th>'
        '<th scope="col">Since the last comparable run</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
        '<p id="none" class="none" hidden>No run fits.</p></div>\n'
        f"{older}"
    )


def _row(row: RunRow) -> str:
    figures = f"<i>{escape(' · '.join(row.figures))}</i>" if row.figures else ""
    tone = {"worse": " class=w", "better": " class=b"}.get(row.change_tone or "", "")
    change = escape(row.change) if row.change else ""
    return (
        f"<tr{'' if row.finished else ' class=x'}><td>{_when(row)}"
        f'<td><a href="{quote(row.href)}">{escape(row.notebook)}</a>'
        f"<td>{_badge(row)}<td>{escape(row.sentence)}{figures}<td{tone}>{change}"
    )


def _badge(row: RunRow) -> str:
    return f'<span class="badge {row.tone}">{escape(row.word)}</span>'


def _when(row: RunRow) -> str:
    return escape(row.started[:16].replace("T", " ")) or "unknown"


def _squeeze(css: str) -> str:
    return re.sub(r"\n", "", css)
