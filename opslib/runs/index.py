"""`reports/index.html`: the newest answer of each notebook, then every run, newest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from opslib.core.clock import ASK
from opslib.core.files import write_text_atomic
from opslib.runs.adopt import adopt_notebooks
from opslib.runs.catalogue import RunRow, drop_ahead, newest_first, scan_runs
from opslib.runs.html import read_template, render_page
from opslib.runs.job import sweep_abandoned
from opslib.runs.redaction import known_secrets
from opslib.runs.trend_pages import TrendSummary, build_trends

INDEX_FILE = "index.html"
MAX_PAGE_ROWS = 1000


def build_index(root: Path, config: Path | None = None) -> Path:
    """Write `index.html` of a report folder and return its path.

    Runs whose runner was killed are given their names and notebooks that plain papermill wrote
    there are adopted first, with the secrets masked that the `.env` beside `config` holds (by
    default the configuration found here). Only what is new is read.

    Raises:
        StorageError: the folder cannot be written.
    """
    secrets = known_secrets(config)
    sweep_abandoned(root, secrets)
    broken = adopt_notebooks(root, secrets)
    rows = newest_first([*scan_runs(root), *broken])
    path = root / INDEX_FILE
    write_text_atomic(path, render_index(rows, build_trends(root, rows)))
    return path


def render_index(
    rows: list[RunRow],
    trends: Sequence[TrendSummary] = (),
    hosts: Mapping[str, str] | None = None,
) -> str:
    """Return the index page of these runs, newest first, and of the trends of their figures.
    `hosts`: where they are of several hosts, the host of each run's id."""
    shown, past = rows[:MAX_PAGE_ROWS], drop_ahead(rows)
    newest: dict[str, RunRow] = {}
    for row in past:
        newest.setdefault(row.notebook, row)
    return render_page(
        "list.html.j2",
        script=read_template("list.js"),
        rows=shown,
        hosts=hosts,
        total=len(rows),
        unfinished=sum(not row.finished for row in rows),
        past=past,
        ahead=len(rows) - len(past),
        ask=ASK,
        latest=[newest[name] for name in sorted(newest)],
        trends={one.newest: one for one in reversed(trends)},
        words=sorted({row.word for row in shown}),
    )
