"""HTML that may be shown: an allow-list of tags, images from data URIs only, no style, no script.

What is not allowed is shown as text. The report's Content-Security-Policy stands behind this.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_TAGS = frozenset(
    re.findall(
        r"\w+",
        "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
        "figure h1 h2 h3 h4 h5 h6 hr i img kbd li ol p picture pre s samp section small source "
        "span strong sub summary sup table tbody td tfoot th thead tr u ul var",
    )
)
_ATTRIBUTES = {
    "*": ("title", "lang", "dir", "role", "aria-label"),
    "a": ("href",),
    "col": ("span",),
    "details": ("open",),
    "img": ("alt", "width", "height"),
    "ol": ("start",),
    "td": ("colspan", "rowspan"),
    "th": ("colspan", "rowspan", "scope"),
}
_DATA_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+\Z")
_CLASSES = re.compile(
    r"(?:pillops-[a-z]+|badge|pass|fail|inconclusive|num|highlight|[a-z][a-z0-9]?|ansi-[a-z-]+)\Z"
)
_DARK = "(prefers-color-scheme: dark)"
_STYLE_ELEMENT = re.compile(r"<style\b[^>]*>.*?</style\s*>", re.IGNORECASE | re.DOTALL)
_EMPTY_IMAGE = re.compile(r"<img(?![^>]*\ssrc=)[^>]*>")
_HEADING = re.compile(r"<(/?)h([1-6])\b")


def clean_html(html: str) -> str:
    """Return `html` with everything outside the allow-list shown as text.

    Style elements are dropped whole: their text says nothing to a reader.
    """
    cleaned = str(_cleaner().clean(_STYLE_ELEMENT.sub("", html)))
    return _scroll_tables(_EMPTY_IMAGE.sub("[an image from outside this report]", cleaned))


def _scroll_tables(html: str) -> str:
    """Let every table but our own, which bring it, scroll inside a region of its own."""
    if 'class="pillops-table"' in html:
        return html
    opening = '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table'
    return html.replace("<table", opening).replace("</table>", "</table></div>")


def order_headings(html: str, above: int = 1) -> str:
    """Return `html` with headings renumbered so that none skips a level below level `above`."""
    previous = above
    opened: list[int] = []

    def renumber(match: re.Match[str]) -> str:
        nonlocal previous
        if match[1]:
            return f"</h{opened.pop() if opened else previous}"
        previous = max(above + 1, min(int(match[2]), previous + 1))
        opened.append(previous)
        return f"<h{previous}"

    return _HEADING.sub(renumber, html)


@cache
def _cleaner() -> Any:
    from bleach.sanitizer import Cleaner  # type: ignore[import-untyped]

    return Cleaner(
        tags=_TAGS,
        attributes=_allowed,
        protocols={"http", "https", "mailto", "data"},
        strip_comments=True,
    )


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "class":
        return all(_CLASSES.match(part) for part in value.split())
    if name == "tabindex":
        return value == "0"
    if tag == "img" and name == "src":
        return bool(_DATA_IMAGE.match(value))
    if tag == "source":
        return (
            bool(_DATA_IMAGE.match(value))
            if name == "srcset"
            else (name, value)
            == (
                "media",
                _DARK,
            )
        )
    if tag == "a" and name == "href":
        return not value.strip().lower().startswith("data:")
    return name in _ATTRIBUTES["*"] or name in _ATTRIBUTES.get(tag, ())
