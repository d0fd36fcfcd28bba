"""What a cell printed for a terminal, as a terminal would leave it standing.

nbconvert (7.17.2) turns colours into styles, and leaves links, backspaces and what was written over
in the page as control characters.
"""

from __future__ import annotations

import re

# Commands to the terminal (titles, links), ended by BEL or ST; control sequences but colours (`m`).
_COMMANDS = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-ln-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_ERASED = re.compile(r"[^\x08\n]\x08")


def settle_text(text: str) -> str:
    """Return printed text with its colours: of a line that was written over, such as a progress
    bar, what stands at last, and no control character that a page may not hold."""
    text = _COMMANDS.sub("", text).replace("\r\n", "\n")
    while _ERASED.search(text):
        text = _ERASED.sub("", text)
    lines = (_last_written(line) for line in text.split("\n"))
    return _CONTROLS.sub("", "\n".join(lines))


def _last_written(line: str) -> str:
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown
