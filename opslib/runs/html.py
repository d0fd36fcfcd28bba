"""The executed notebook as one self-contained page: the answer first, no script, no request."""

import base64
import hashlib
import json
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from opslib.core.formatting import format_bytes, format_duration
from opslib.core.language import language_in_force, mark, tr, tr_many
from opslib.runs.notebooks import code_cells, is_marker, to_node
from opslib.runs.run_record import LOG_FILE, RUN_FILE, RunRecord
from opslib.runs.sanitize import clean_html, order_headings, settle_attachments, settle_text
from opslib.telling.figures import short_number
from opslib.telling.scraps import SCRAP_MIME_PREFIX, Scrap

TEMPLATES = Path(__file__).parent / "templates"
MAX_KEY_FIGURES = 8
_DESK_STYLES = ("report.css", "list.css", "trend.css")
NO_ALT = mark("A figure without a description.")
_LINK_BESIDE = re.compile(r"\[([^\]]+)\]\(\.{1,2}/[^)\s]*\)")


def render_report(
    notebook: Any, run: RunRecord, *, files: tuple[str, ...] = (), root: str = "../../"
) -> str:
    """Return the HTML page of an executed notebook.

    Args:
        notebook: the executed notebook (nbformat 4 node).
        run: how it went.
        files: names of the files beside the page, linked at its end.
        root: the relative path from the page's folder to the folder of the index.
    """
    body, css = _body_notebook(notebook, run), read_template("report.css")
    words = {RUN_FILE: tr("run record"), LOG_FILE: tr("kernel log")}
    report = {
        "run": run,
        "lang": language_in_force(),
        "css": css,
        "policy": content_policy(css),
        "root": root,
        "figures": shown_figures(run.key_figures),
        "files": [(name, words.get(name, name)) for name in files],
    }
    resources = {"report": report, "metadata": {}}
    try:
        text, _ = _exporter().from_notebook_node(body, resources=resources)
    except Exception:  # an attachment in a form that is not known here must not cost the page
        for cell in body.cells:
            cell.pop("attachments", None)
            cell.source = cell.source.replace("attachment:", "missing:")
        text, _ = _exporter().from_notebook_node(body, resources=resources)
    return str(text)


def render_page(template: str, *, script: str | None = None, **given: Any) -> str:
    """Return a page of the desk from its template, with its style sheet and at most one script."""
    css = "".join(map(read_template, _DESK_STYLES)).replace("\n", "")
    return str(
        _desk_templates()
        .get_template(template)
        .render(
            css=css,
            script=script,
            policy=content_policy(css, script),
            lang=language_in_force(),
            **given,
        )
    )


@cache
def _desk_templates() -> Any:
    """The templates of the desk; each is compiled once."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES / "pillops"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(tr=_tr_html, tr_many=tr_many)
    return environment


def _tr_html(message: str, **values: Any) -> Any:
    """A message in a page: markup may be put into it, and stands for itself."""
    from markupsafe import escape

    told = escape(tr(message))
    return told.format(**values) if values else told


def content_policy(css: str, script: str | None = None) -> str:
    """Return the Content-Security-Policy that allows one style sheet, at most one script and
    images from data URIs."""
    scripts = f"; script-src {_source_hash(script)}" if script else ""
    return (
        f"default-src 'none'; img-src data:; style-src {_source_hash(css)}{scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def read_template(name: str) -> str:
    """Return a style sheet or script of the template folder, whitespace trimmed."""
    text = (TEMPLATES / "pillops" / name).read_text(encoding="utf-8")
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def find_title(notebook: Any, fallback: str) -> str:
    """Return the first heading of the notebook's first markdown cell, or `fallback`."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and not is_marker(cell):
            match = re.match(r"\s*#\s+(.+)", cell.source)
            return " ".join(re.sub(r"[*_`]", "", match[1]).split()) if match else fallback
    return fallback


def shown_figures(scraps: tuple[Scrap, ...]) -> list[tuple[str, str, str | None]]:
    """Return the key figures as the page prints them (label, text, unit), at most eight."""
    return [
        (
            scrap.label or scrap.name.replace("_", " "),
            f"{scrap.value:,}" if isinstance(scrap.value, int) else short_number(scrap.value),
            scrap.unit,
        )
        for scrap in scraps[:MAX_KEY_FIGURES]
    ]


def _when_text(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def _source_hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _body_notebook(notebook: Any, run: RunRecord) -> Any:
    """A copy without the marker cells and without the title that the page already shows."""
    body = to_node(notebook)
    body.cells = [cell for cell in body.cells if not is_marker(cell)]
    first = next((cell for cell in body.cells if cell.cell_type == "markdown"), None)
    if first is not None and find_title(body, "") == run.title:
        first.source = re.sub(r"\A\s*#\s+.+\n*", "", first.source)
    for cell in body.cells:
        if cell.cell_type == "markdown":  # a link beside the notebook leads nowhere from a report
            cell.source = _LINK_BESIDE.sub(r"\1", cell.source)
            settle_attachments(cell)
    codes = code_cells(body)
    for cell in codes:
        cell.outputs = [output for output in cell.outputs if not _is_scrap(output)]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = settle_text(output.text)
    failed = run.problem.cell if run.problem else None
    if failed is not None and failed <= len(codes):
        codes[failed - 1].metadata["pillops_failed"] = True
    return body


def _is_scrap(output: Any) -> bool:
    kinds = output.get("data", {})
    return bool(kinds) and all(kind.startswith(SCRAP_MIME_PREFIX) for kind in kinds)


def _focusable(html: str) -> str:
    """Let code that scrolls sideways be scrolled with the keyboard."""
    return html.replace("<pre>", '<pre tabindex="0" role="region" aria-label="Code">', 1)


def _alt_text(output: Any, mime: str) -> str:
    metadata = output.get("metadata", {})
    return str(metadata.get(mime, {}).get("alt") or metadata.get("alt") or tr(NO_ALT))


@cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="pillops",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    for name, function in (
        ("clean", clean_html),
        ("clean_html", clean_html),
        ("order_headings", order_headings),
        ("focusable", _focusable),
        ("alt_text", _alt_text),
        ("strip", lambda text: "".join(str(text).split())),
        ("value_text", _value_text),
        ("when", _when_text),
        ("duration", format_duration),
        ("bytes", format_bytes),
    ):
        exporter.register_filter(name, function)
    exporter.environment.globals.update(tr=_tr_html)
    return exporter
