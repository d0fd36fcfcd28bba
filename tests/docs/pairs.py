"""A document in two languages: what both must say alike, and where they do not.

What no program can compare, the words, is noted by section in `translated.json`: once both say the
same again, `python -m tests.docs.pairs` notes them as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

MARKDOWN = MarkdownIt("commonmark").enable("table")
FIGURE = re.compile(r"(?<![A-Za-z0-9_.])[−±+]?\d+(?:[.,]\d+)*")
SNAPSHOT = re.compile(r"<!-- snapshot:.*?<!-- /snapshot -->", re.DOTALL)
NOTED = Path(__file__).with_name("translated.json")
HOW = {
    (False, False): None,
    (True, False): "has not followed",
    (False, True): "went ahead of",
    (True, True): "changed with",
}
WAY_OUT = "let both say the same, then run python -m tests.docs.pairs"
BLOCKS = {
    "bullet_list_open": "list",
    "ordered_list_open": "numbered list",
    "list_item_open": "item of a list",
    "paragraph_open": "paragraph",
    "tr_open": "row of a table",
    "th_open": "cell",
    "td_open": "cell",
}


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a cell, a code block or what holds them: its line, and what of it
    does not depend on the language."""

    kind: str
    line: int
    to_the_letter: str = ""
    code: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


def compare(document: Path, translation: Path) -> list[str]:
    """Return a line for each thing in which the two differ: what it is, and its place in both.

    `translation` has the document's name and lies in a folder in the document's own, beside the
    other translations into its language.
    """
    abroad = translation.parent
    theirs = _split(_read_blocks(document, abroad))
    ours = _split(_read_blocks(translation, abroad))
    for there, here in zip_longest(theirs, ours):
        if there is None or here is None or there[0].kind != here[0].kind:
            kinds = [one[0].kind if one else "no section" for one in (here, there)]
            line, place = (here or ours[-1])[0].line, (there or theirs[-1])[0].line
            return [f"{translation}:{line}: {' for '.join(kinds)} at {document}:{place}"]
    return [
        f"{translation}:{line}: {what} at {document}:{place}"
        for there, here in zip(theirs, ours, strict=True)
        for what, place, line in _differ(there, here)
    ]


@cache
def find_anchors(text: str) -> list[str]:
    """Return the anchors of a document's headings in order, as GitHub makes them."""
    seen: Counter[str] = Counter()
    anchors = []
    tokens = MARKDOWN.parse(text)
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            words = re.sub(r"[^\w\- ]", "", inside.content.lower()).replace(" ", "-")
            anchors.append(f"{words}-{seen[words]}" if seen[words] else words)
            seen[words] += 1
    return anchors


def _read_blocks(document: Path, abroad: Path) -> Iterator[Block]:
    line, kind, snapshot = 1, "", False
    for token in MARKDOWN.parse(document.read_text()):
        line = token.map[0] + 1 if token.map else line
        if token.type == "html_block":
            snapshot = token.content.startswith("<!-- snapshot:")
            yield Block("comment", line, token.content)
        elif token.type in ("fence", "code_block"):
            yield Block("code block", line, f"{token.info}\n{token.content}")
        elif token.type == "heading_open":
            kind = f"heading of level {token.tag[1:]}"
        elif token.type in BLOCKS:
            kind = f"{BLOCKS[token.type]} (depth {token.level})"
            if token.type not in ("paragraph_open", "th_open", "td_open"):
                yield Block(kind, line)
        elif token.type == "inline":
            yield _read_text(token, kind, line, document, abroad, whole=snapshot)


def _read_text(
    token: Token, kind: str, line: int, document: Path, abroad: Path, *, whole: bool
) -> Block:
    inside = token.children or []
    words = " ".join(child.content for child in inside if child.type == "text")
    links = [unquote(str(child.attrGet("href"))) for child in inside if child.type == "link_open"]
    return Block(
        kind,
        line,
        words if whole else "",
        tuple(child.content for child in inside if child.type == "code_inline"),
        tuple(FIGURE.findall(words)),
        tuple(_leads_to(link, document, abroad) for link in links),
    )


def _leads_to(target: str, document: Path, abroad: Path) -> str:
    """Where a link leads, in words that are the same in both languages where it is the same."""
    if "://" in target:
        return target
    name, _, anchor = target.partition("#")
    place = Path(os.path.normpath(document.parent / name)) if name else document
    if place.parent not in (abroad, abroad.parent) or not (abroad / place.name).exists():
        return f"{os.path.relpath(place, abroad.parent)}#{anchor}".removesuffix("#")
    language = "own" if place.parent == document.parent else "other"
    anchors = find_anchors(place.read_text())
    heading = f" heading {anchors.index(anchor) + 1}" if anchor in anchors else f" {anchor}"
    return f"{place.name} in the {language} language{heading if anchor else ''}"


def _split(blocks: Iterator[Block]) -> list[list[Block]]:
    """The blocks by section: a heading and all up to the next."""
    sections: list[list[Block]] = []
    for block in blocks:
        if block.kind.startswith("heading") or not sections:
            sections.append([])
        sections[-1].append(block)
    return sections


def _differ(there: list[Block], here: list[Block]) -> Iterator[tuple[str, int, int]]:
    """What differs in a section, and the line of it in the document and in the translation."""
    for one, other in zip_longest(there, here):
        if one is None or other is None or one.kind != other.kind:
            kinds = [block.kind if block else "the section's end" for block in (other, one)]
            yield " for ".join(kinds), (one or there[-1]).line, (other or here[-1]).line
            return
        lines = zip_longest(one.to_the_letter.split("\n"), other.to_the_letter.split("\n"))
        for number, (theirs, ours) in enumerate(lines):
            if theirs != ours:
                yield f"{ours!r} for {theirs!r}", one.line + number, other.line + number
                break
        in_a_sentence = not one.kind.startswith("cell")  # where a number may be written in letters
        for what, wanted, found, more_allowed in (
            ("code", one.code, other.code, False),
            ("figures", one.figures, other.figures, in_a_sentence),
            ("links", one.links, other.links, False),
        ):
            missing = list((Counter(wanted) - Counter(found)).elements())
            more = list((Counter(found) - Counter(wanted)).elements())
            if missing or (more and not more_allowed):
                yield f"{what} {_name(more)} for {_name(missing)}", one.line, other.line
        if one.links != other.links and sorted(one.links) == sorted(other.links):
            yield f"links in another order than {_name(one.links)}", one.line, other.line


def _name(several: Sequence[str]) -> str:
    return ", ".join(map(repr, several)) or "nothing"


def read_sections(document: Path) -> list[tuple[int, str]]:
    """Return line and digest of each section, but for the tables that a snapshot writes."""
    text = document.read_text()
    heads = [one.map[0] for one in MARKDOWN.parse(text) if one.type == "heading_open" and one.map]
    lines = text.split("\n")
    sections = ["\n".join(lines[here:there]) for here, there in pairwise([*heads, len(lines)])]
    words = [SNAPSHOT.sub("", section).strip() for section in sections]
    digests = [hashlib.sha256(one.encode()).hexdigest()[:12] for one in words]
    return [(head + 1, digest) for head, digest in zip(heads, digests, strict=True)]


def find_changed(document: Path, translation: Path, noted: Sequence[str]) -> list[str]:
    """Return a line for each section that is not what was noted as translated."""
    theirs, ours = read_sections(document), read_sections(translation)
    if not len(theirs) == len(ours) == len(noted):
        return [f"{translation}: its sections are not those that were noted; {WAY_OUT}"]
    found = []
    for (place, digest), (line, its), before in zip(theirs, ours, noted, strict=True):
        was, its_was = before.split()
        if (how := HOW[digest != was, its != its_was]) is not None:
            found.append(f"{translation}:{line}: {how} {document}:{place}; {WAY_OUT}")
    return found


def note(document: Path, translation: Path) -> list[str]:
    """Return what `find_changed` takes for the two as they are now."""
    both = zip(read_sections(document), read_sections(translation), strict=True)
    return [f"{theirs} {ours}" for (_, theirs), (_, ours) in both]


if __name__ == "__main__":
    docs = Path(__file__).resolve().parents[2] / "docs"
    pairs = [(docs / path.name, path) for path in sorted((docs / "ko").glob("*.md"))]
    differences = [line for pair in pairs for line in compare(*pair)]
    if differences:
        sys.exit("\n".join(differences))
    notes = {document.name: note(document, twin) for document, twin in pairs}
    NOTED.write_text(json.dumps(notes, indent=1) + "\n")
