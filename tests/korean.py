"""Being told things in Korean for a while, and what English is left in what was told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from opslib.core.language import ENGLISH, use_language

# Names that stand in Korean as they are: of programs, of things with a name of their own.
NAMES = frozenset(
    {"cron", "crontab", "float", "glob", "img", "kill", "ms", "null", "nvidia", "onnx"}
    | {"papermill", "pillops", "smi", "top"}
)
_APART = re.compile(
    r"`[^`]*`|https?://\S+|\S*[/@]\S*|\{[^}]*\}|[\w.<>-]*\.[\w<][\w.<>-]*|[\w.-]*[\d_][\w.-]*|"
    r"\"[^\"]*\"|'[^']*'"
)
_WORD = re.compile(r"(?<![A-Za-z])[a-z]{2,}(?![A-Za-z])")
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")


@contextmanager
def in_korean() -> Iterator[None]:
    """Tell people everything in Korean, and afterwards in English again."""
    use_language("ko")
    try:
        yield
    finally:
        use_language(ENGLISH)


def find_english(text: str) -> list[str]:
    """Return the English words in a text: in small letters, and of no command, path or name."""
    return [word for word in _WORD.findall(_APART.sub(" ", text)) if word not in NAMES]


def list_figures(text: str) -> Counter[str]:
    """Return the figures in a text, however they are ordered."""
    return Counter(_FIGURE.findall(text))
