"""Images attached to a markdown cell: written inline, by reference or as HTML, under any name."""

from __future__ import annotations

import re
from html import unescape
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

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
