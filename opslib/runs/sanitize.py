"""What of a notebook may be shown: HTML by an allow-list, attached images, printed text.

HTML has images from data URIs only, no style and no script; what is not allowed is shown as text.
The report's Content-Security-Policy stands behind this. nbconvert (7.17.2) turns a terminal's
colours into styles, and leaves links, backspaces and what was written over in the page as control
characters.
"""

import re
from functools import cache
from html import unescape
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

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
_INLINE = re.compile(
    r"!\[([^\]]*)\]\(<?attachment:((?:[^()<>\"]|\([^()]*\))+?)>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?\)"
)
_REFERENCE = re.compile(
    r"^( {0,3}\[[^\]]+\]:\s*)<?attachment:([^<>\"\n]+?)>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?[ \t]*$",
    re.MULTILINE,
)
_HTML = re.compile(
    r"(\bsrc=)(?:\"attachment:([^\"]*)\"|'attachment:([^']*)'|attachment:([^\s\"'>]*))",
    re.IGNORECASE,
)
# Commands to the terminal (titles, links), ended by BEL or ST; control sequences but colours (`m`).
_COMMANDS = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-ln-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_ERASED = re.compile(r"[^\x08\n]\x08")


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


def settle_attachments(cell: Any) -> None:
    """Give the images attached to a cell names that every reader of the cell takes alike, and say
    where one is missing: it must not cost the page."""
    there = {name: data for name, data in (cell.get("attachments") or {}).items() if data}
    names = {name: f"{number}{PurePath(name).suffix}" for number, name in enumerate(there)}

    def find(written: str) -> str:
        name = written.strip()
        return name if name in names else unquote(name)

    def settle(found: re.Match[str]) -> str:
        name = find(found[2])
        if name in names:
            return f"![{found[1]}](attachment:{names[name]})"
        return f"*(the image {name} is missing)*"

    def settle_reference(found: re.Match[str]) -> str:
        name = find(found[2])
        return f"{found[1]}{f'attachment:{names[name]}' if name in names else 'missing:'}"

    def settle_html(found: re.Match[str]) -> str:
        name = find(unescape(found[2] or found[3] or found[4] or ""))
        if name not in there:
            return f'{found[1]}"missing:"'
        kind, data = next(iter(there[name].items()))
        return f'{found[1]}"data:{kind};base64,{"".join(data)}"'

    cell.source = _INLINE.sub(settle, cell.source)
    cell.source = _REFERENCE.sub(settle_reference, cell.source)
    cell.source = _HTML.sub(settle_html, cell.source)
    cell.attachments = {names[name]: data for name, data in there.items()}


def settle_text(text: str) -> str:
    """Return printed text with its colours: of a line that was written over, such as a progress
    bar, what stands at last, and no control character that a page may not hold."""
    text = _COMMANDS.sub("", text).replace("\r\n", "\n")
    while _ERASED.search(text):
        text = _ERASED.sub("", text)
    lines = (_last_written(line) for line in text.split("\n"))
    return _CONTROLS.sub("", "\n".join(lines))


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
    if (tag, name) in (("img", "src"), ("source", "srcset")):
        return bool(_DATA_IMAGE.match(value))
    if tag == "source":
        return name == "media" and value == _DARK
    if tag == "a" and name == "href":
        return not value.strip().lower().startswith("data:")
    return name in _ATTRIBUTES["*"] or name in _ATTRIBUTES.get(tag, ())


def _last_written(line: str) -> str:
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown
