"""Printed text stands on a page as a terminal would have left it."""

from __future__ import annotations

import pytest

from opslib.runs.sanitize import settle_text


@pytest.mark.parametrize(
    ("printed", "left"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07done", "done"),
        ("10 %\r20 %\r100 %\nnext", "100 %\nnext"),
        ("a longer line\rshort", "shortger line"),
        ("10 %\b\b\b\b20 %", "20 %"),
        ("\x1b[2K\x1b[1Aup", "up"),
        ("one\r\ntwo\x00", "one\ntwo"),
    ],
)
def test_links_bars_and_controls_are_settled_and_colours_stay(printed: str, left: str) -> None:
    assert settle_text(printed) == left
