"""`reports/index.html`: the newest answer of each notebook, then every run, newest first."""

from collections.abc import Sequence
from pathlib import Path

from opslib.core.clock import ASK
from opslib.core.files import write_text_atomic
from opslib.core.formatting import plural
from opslib.runs.adopt import adopt_notebooks
from opslib.runs.catalogue import RunRow, drop_ahead, newest_first, scan_runs
from opslib.runs.html import TEMPLATES, content_policy, read_template
from opslib.runs.job import sweep_abandoned
from opslib.runs.trend_pages import STYLES, TrendSummary, build_trends

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
    write_text_atomic(path, render_index(rows, build_trends(root, rows)))
    return path


def render_index(rows: list[RunRow], trends: Sequence[TrendSummary] = ()) -> str:
    """Return the index page of these runs, newest first, and of the trends of their figures."""
    from jinja2 import Environment, FileSystemLoader

    css = "".join(map(read_template, STYLES)).replace("\n", "")
    script = read_template("list.js")
    shown, past = rows[:MAX_PAGE_ROWS], drop_ahead(rows)
    newest: dict[str, RunRow] = {}
    for row in past:
        newest.setdefault(row.notebook, row)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plural"] = plural
    return environment.get_template("pillops/list.html.j2").render(
        css=css,
        script=script,
        policy=content_policy(css, script),
        rows=shown,
        total=len(rows),
        unfinished=sum(not row.finished for row in rows),
        past=past,
        ahead=len(rows) - len(past),
        ask=ASK,
        latest=[newest[name] for name in sorted(newest)],
        trends={one.newest: one for one in reversed(trends)},
        words=sorted({row.word for row in shown}),
    )
