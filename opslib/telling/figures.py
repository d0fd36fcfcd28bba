"""Figures, tables and verdicts as notebooks show them: readable in JupyterLab and in the report.

What is shown carries classes for the report's style sheet and a few inline styles for
JupyterLab; the report removes the inline ones.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from opslib.core.errors import InputError
from opslib.core.language import mark, tr
from opslib.core.verdicts import VERDICT_EXIT_CODES, Verdict
from opslib.telling.json_values import to_json
from opslib.telling.themes import THEMES, Theme, use_theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

PNG_DPI = 192
DISPLAY_DPI = 96
VERDICT_WORDS = {"pass": mark("Pass"), "fail": mark("Fail"), "inconclusive": mark("Inconclusive")}
_LAB_COLOURS = {
    "pass": "background:#e3f4ea;color:#0a5c33",
    "fail": "background:#fde8e8;color:#931a1f",
    "inconclusive": "background:#fcf0d6;color:#6e4600",
}
_ONE = r"[-+−±]?\s?\d[\d,.]*(?:\s?(?:%|×|x|ms|s|min|h|pp|img/s|[KMGT]?i?B))?"
_NUMBER = re.compile(rf"{_ONE}(?:\s?(?:to|–|/|\(|±)\s?{_ONE}\)?)*\Z")


Draw = Callable[["Theme"], "Figure | None"]


def show_figure(draw: Draw, *, alt: str, caption: str | None = None) -> None:
    """Show what `draw` draws, in the light or the dark theme as the reader's system asks. `draw`:
    takes the theme and returns a matplotlib figure, called once for each theme; or None where there
    is nothing to draw, which `alt` says in its place. `alt`: what the figure says, for readers who
    cannot see it. `caption`: a line below the figure."""
    show(figure_html(draw, alt=alt, caption=caption), alt)


def show_table(frame: DataFrame, *, caption: str, decimals: int | None = None) -> None:
    """Show `frame` as a table with its caption; see `table_html`."""
    show(table_html(frame, caption=caption, decimals=decimals), frame.to_string(index=False))


def show_verdict(verdict: Verdict, finding: str) -> None:
    """Show the verdict as a badge and the finding beside it."""
    show(verdict_html(verdict, finding), f"{verdict_word(verdict)}: {finding}")


def show_text(text: str) -> None:
    """Show a paragraph."""
    show(f"<p>{escape(text)}</p>", text)


def show_list(lines: Sequence[str]) -> None:
    """Show lines of text as a list."""
    html = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
    show(html, "\n".join(lines))


def figure_html(draw: Draw, *, alt: str, caption: str | None = None) -> str:
    """Return the `<figure>` element of `show_figure`, or a paragraph where nothing is drawn. Raises
    InputError: `alt` is empty."""
    if not alt.strip():
        raise InputError("a figure needs an alternative text; pass alt='what it says'")
    sources = {}
    for theme in THEMES:
        rendered = _render(draw, theme)
        if rendered is None:
            return f'<p class="pillops-nothing">{escape(" ".join(alt.split()))}</p>'
        sources[theme.name] = rendered
    light, width, height = sources["light"]
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        '<figure class="pillops-figure">'
        '<div class="pillops-scroll" role="group" aria-label="Figure" tabindex="0"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{sources["dark"][0]}">'
        f'<img src="{light}" alt="{escape(" ".join(alt.split()), quote=True)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto">'
        f"</picture></div>{below}</figure>"
    )


def table_html(frame: DataFrame, *, caption: str, decimals: int | None = None) -> str:
    """Return `frame` as an accessible HTML table: missing values as dashes, numbers to the right.
    Floats are shown with `decimals` places, or with three significant digits. The index is left
    out. A column is numeric when every value in it is a number, with a unit or an interval or not.
    Raises InputError: `caption` is empty."""
    if not caption.strip():
        raise InputError("a table needs a caption; pass caption='what it shows'")
    content = to_json(frame, "table")
    texts = [[_cell_text(value, decimals) for value in row] for row in content["rows"]]
    numeric = [_is_numeric(column) for column in zip(*texts, strict=True)]
    numeric = numeric or [False] * len(content["columns"])

    def cells(row: list[str], tag: str, scope: str = "") -> str:
        styled = zip(row, numeric, strict=True)
        return "".join(f"<{tag}{scope}{_align(one)}>{escape(text)}</{tag}>" for text, one in styled)

    head = cells(content["columns"], "th", ' scope="col"')
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in texts)
    body = body or f'<tr><td colspan="{max(1, len(numeric))}">none</td></tr>'
    label = escape(caption, quote=True)
    return (
        f'<div class="pillops-table" role="region" aria-label="{label}" tabindex="0" '
        'style="overflow-x:auto"><table>'
        f'<caption style="text-align:left;caption-side:top">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def verdict_html(verdict: Verdict, finding: str) -> str:
    """Return the element of `show_verdict`. Raises InputError: the verdict is unknown."""
    if verdict not in VERDICT_EXIT_CODES:
        known = ", ".join(VERDICT_EXIT_CODES)
        raise InputError(f"verdict {verdict!r} is unknown; expected one of {known}")
    style = f"padding:.15em .7em;border-radius:99px;font-weight:600;{_LAB_COLOURS[verdict]}"
    return (
        f'<p class="pillops-verdict"><span class="badge {verdict}" style="{style}">'
        f"{verdict_word(verdict)}</span> {escape(finding)}</p>"
    )


def verdict_word(verdict: str) -> str:
    """Return the verdict as people read it."""
    return tr(VERDICT_WORDS.get(verdict, verdict))


def _render(draw: Draw, theme: Theme) -> tuple[str, int, int] | None:
    """Return the figure as a data URI, an SVG or a PNG, whichever is smaller, and its size in
    CSS pixels; None where there is none."""
    import matplotlib.pyplot as plt

    with use_theme(theme):
        figure = draw(theme)
        if figure is None:
            return None
        try:
            svg, png = io.BytesIO(), io.BytesIO()
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
            figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
            inches = figure.get_size_inches()
        finally:
            plt.close(figure)
    mime, data = min(
        ("image/svg+xml", _shrink_svg(svg.getvalue())),
        ("image/png", png.getvalue()),
        key=lambda item: len(item[1]),
    )
    width, height = (round(float(side) * DISPLAY_DPI) for side in inches)
    return f"data:{mime};base64,{base64.b64encode(data).decode()}", width, height


def _shrink_svg(data: bytes) -> bytes:
    """Drop the metadata block, the comments and the indentation that matplotlib writes."""
    data = re.sub(rb"<metadata>.*?</metadata>|<!--.*?-->", b"", data, flags=re.DOTALL)
    return re.sub(rb">\s+<", b"><", re.sub(rb"\s*\n\s*", b" ", data))


def _align(right: bool) -> str:
    return ' class="num" style="text-align:right"' if right else ' style="text-align:left"'


def _cell_text(value: Any, decimals: int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return format_number(value, decimals)
    return str(value)


def format_number(value: float, decimals: int | None = None) -> str:
    """Return `value` with `decimals` places, or with three significant digits and no exponent
    between 1e-4 and 1e15."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if abs(value) >= 100 and abs(value) < 1e15:
        return f"{value:,.0f}"
    if value == 0 or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:#.3g}".rstrip(".")


def short_number(value: float) -> str:
    """Return `value` with up to three significant digits and no trailing zeros: `0.8`, `14.2`."""
    text = format_number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _is_numeric(column: tuple[str, ...]) -> bool:
    given = [text for text in column if text != "–"]
    return bool(given) and all(_NUMBER.match(text) for text in given)


def show(html: str, text: str) -> None:
    """Show HTML, or where there is none the same as text."""
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]
