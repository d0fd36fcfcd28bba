"""A release told to people: flagged where it must be, and drawn for any number of releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.ops.release.record import Proof
from opslib.ops.release.report import CoverageRow
from opslib.ops.release.store import StoredRelease
from opslib.ops.release.story import (
    coverage_frame,
    describe_history,
    draw_history,
    list_notes,
)
from opslib.telling.figures import figure_html
from opslib.telling.themes import LIGHT, use_theme


def row(day: int, *tests: str) -> CoverageRow:
    """A release made on a day of November, tested once on each following day: `+`, `-` or `?`."""
    name = f"release-202611{day:02d}-020000-abc1234"
    proofs = tuple(
        Proof(
            release=name,
            content_id=None,
            proved_at_utc=f"2026-11-{day + at:02d}T03:00:00+00:00",
            ok=how != "-",
            problem="verify: config.yaml differs" if how == "-" else None,
            note="its model has no golden images to be asked" if how == "?" else None,
            took_s=2.0,
        )
        for at, how in enumerate(tests, start=1)
    )
    stored = StoredRelease(
        path=Path(f"{name}.tar.gz"),
        name=name,
        size_bytes=1 << 20,
        released_at_utc=f"2026-11-{day:02d}T02:00:00+00:00",
        git_sha="abc1234",
        pinned=day == 1,
    )
    return CoverageRow(stored, None, proofs, "its manifest is not at hand")


def test_never_proved_and_failed_releases_stand_out_in_table_notes_and_words() -> None:
    rows = [row(5), row(4, "+", "-"), row(3, "?"), row(1, "+")]
    frame = coverage_frame(rows)
    assert list(frame["last test"][1:]) == ["FAILED", "restored, not asked", "passed in 2.0 s"]
    assert frame["last proved"][0] == "NEVER"
    assert "2026-11-05" in frame["last proved"][1]
    assert frame["release"][3].endswith("(pinned)")
    notes = list_notes(rows)
    assert "config.yaml differs. Do not count on it" in notes[0]
    assert notes[1].startswith(f"Never proved: {rows[0].stored.name}.")
    said = describe_history(rows)
    assert f"{rows[0].stored.name}: never proved" in said
    assert f"{rows[1].stored.name}: failed on 2026-11-06" in said


def test_what_was_tested_long_ago_is_told_in_days() -> None:
    assert "days ago" in coverage_frame([row(1, "+")])["last proved"][0]


@pytest.mark.parametrize("count", [0, 1, 25])
def test_the_history_is_drawn_for_any_number_of_releases(count: int) -> None:
    rows = [row(day % 25 + 1, *("+-?"[: day % 4])) for day in range(count)]
    html = figure_html(lambda theme: draw_history(rows, theme), alt=describe_history(rows))
    assert ("<img" in html) is bool(rows)


def test_the_title_counts_what_needs_attention() -> None:
    import matplotlib.pyplot as plt

    cases = {
        "1 release, all proved": [row(1, "+")],
        "3 releases, 1 failed, 1 never proved, 1 not asked": [row(1, "-"), row(2), row(3, "?")],
    }
    for title, rows in cases.items():
        with use_theme(LIGHT):
            figure = draw_history(rows, LIGHT)
            assert figure is not None
            assert figure.axes[0].get_title(loc="left") == title
            plt.close(figure)
