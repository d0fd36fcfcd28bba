"""A sweep told to people: tables and figures say what the record says."""

from pathlib import Path

import pytest

from opslib.ops.sweep import story as story
from opslib.ops.sweep.columns import snapshot
from opslib.ops.sweep.record import SweepOptions
from opslib.telling.figures import figure_html, table_html
from tests.ops.sweep.makers import make_sweep


def test_timed_rows_come_fastest_first_with_their_role() -> None:
    frame = story.sweep_frame(make_sweep())
    assert list(frame["settings"]) == ["no spinning", "default"]
    assert frame["status"][0] == "recommended, fastest"
    assert frame["× default (95 %)"][0] == "1.25 (1.24 to 1.26)"


def test_rows_without_a_figure_are_listed_with_their_reason() -> None:
    frame = story.untimed_frame(make_sweep())
    assert list(frame["rows"]) == ["3", "4"]
    assert "no NVIDIA driver" in frame["status"][0]


def test_axes_say_what_they_do_not_do() -> None:
    frame = story.axis_frame(make_sweep())
    effects = dict(zip(frame["option"], frame["batch 1"], strict=True))
    assert effects["allow_spinning"] == "1.25 × as fast"
    assert effects["cudnn_conv_use_max_workspace"].startswith("no measurable effect")


def test_the_front_holds_whom_nobody_beats_in_both() -> None:
    record = make_sweep()
    assert [row.number for row in story.find_front(story.list_timed(record))] == [2]
    small = record.rows[0].model_copy(update={"p50_ms": 1.0, "throughput_img_s": 100.0})
    front = story.find_front([small, record.rows[1]])
    assert [row.p50_ms for row in front] == [1.0, 1.6]


def test_the_figure_is_drawn_in_both_themes_with_words_beside_it() -> None:
    record = make_sweep()
    html = figure_html(
        lambda theme: story.draw_pareto(record, theme), alt=story.describe_pareto(record)
    )
    assert "no spinning at batch 1" in html
    for frame in (story.sweep_frame, story.axis_frame, story.untimed_frame):
        assert "<table>" in table_html(frame(record), caption="x")


def test_notes_name_the_tie_set_and_the_fallback() -> None:
    lines = " ".join(story.list_notes(make_sweep()))
    assert "tie set: no spinning" in lines
    assert "CUDA cannot start" in lines
    assert "4 requested rows: 2 measured, 1 unavailable, 1 equivalent" in lines


def test_the_snapshot_has_text_cells_for_what_was_measured() -> None:
    columns, rows = snapshot(make_sweep())
    assert len(rows) == 2
    assert all(len(row) == len(columns) for row in rows)
    assert all(isinstance(cell, str) for row in rows for cell in row)


def test_a_failed_sweep_still_tells_its_story(tmp_path: Path) -> None:
    record = make_sweep(SweepOptions(), best=None, recommended=None, batches=(), axes=())
    story.publish_sweep(record, tmp_path / "x.json")
    assert story.list_notes(record)


def test_the_gain_is_published_with_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}

    def publish(name: str, _value: object, *, interval: object = None, **_more: object) -> None:
        told[name] = interval

    monkeypatch.setattr(story, "publish", publish)
    record = make_sweep()
    story.publish_sweep(record, tmp_path / "x.json")
    assert record.recommended is not None
    assert told["gain"] == record.recommended.gain_ci95
