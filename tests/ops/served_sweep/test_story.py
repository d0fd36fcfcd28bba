"""A sweep of the service told to people: tables and figures say what the record says."""

import matplotlib.pyplot as plt

from opslib.ops.served_sweep import story
from opslib.ops.served_sweep.columns import snapshot
from opslib.ops.served_sweep.record import Goal, ServedOptions
from opslib.ops.sweep.rows import sum_up_undecided
from opslib.telling.themes import LIGHT
from tests.ops.served_sweep.makers import make_served


def test_measured_rows_come_best_first_with_their_role() -> None:
    frame = story.row_frame(make_served())
    assert list(frame["settings"]) == [
        "1 worker, all threads each, no batching, no spinning",
        "default",
    ]
    assert frame["status"][0] == "recommended, best"
    assert frame["× default (95 %)"][0] == "1.25 (1.24 to 1.26)"
    assert frame["requests/s"][0] == 1000.0


def test_rows_without_a_figure_are_listed_with_their_reason() -> None:
    frame = story.unmeasured_frame(make_served())
    assert list(frame["rows"]) == ["3", "4"]
    assert frame["status"][1].startswith("unavailable: its p99 is over 100 ms")


def test_the_document_has_the_rows_that_stayed() -> None:
    headings, rows = snapshot(make_served())
    assert headings[:4] == ["Model", "Settings", "On", "requests/s"]
    assert [row[3] for row in rows] == ["1,000", "800"]


def test_the_figure_shows_every_measured_setting_and_says_so_in_words() -> None:
    record = make_served()
    figure = story.draw_settings(record, LIGHT)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "default"
    assert labels[1].endswith("no spinning (recommended)")
    plt.close(figure)
    assert "1,000 requests a second, p99 within 100 ms; default: 800" in story.describe_settings(
        record
    )
    nothing = make_served(rows=())
    assert story.draw_settings(nothing, LIGHT) is None
    assert story.describe_settings(nothing).startswith("No figure")


def test_the_notes_say_where_the_load_came_from_and_when_it_was_late() -> None:
    notes = story.list_notes(make_served())
    assert "The load came from this host and took its share of the processors." in notes
    assert notes[-1] == "To use these settings: pillops apply served_sweep.json"
    assert not any("was late" in note for note in notes)
    late = story.list_notes(make_served(ServedOptions(), sent_late_p99_ms=20.0))
    assert any("late by up to 20.0 ms" in note for note in late)


def test_a_goal_tells_its_figure() -> None:
    throughput = Goal(objective="throughput", p99_limit_ms=100.0)
    assert throughput.tell(812.4) == "812 requests a second, p99 within 100 ms"
    assert (
        Goal(objective="p99", rate_per_s=200.0).tell(3.21)
        == "p99 3.21 ms (median of the visits) at 200 requests a second"
    )


def test_at_a_rate_the_notes_say_of_how_many_requests_a_p99_is() -> None:
    record = make_served(goal=Goal(objective="p99", rate_per_s=1000.0))
    (note,) = [note for note in story.list_notes(record) if "p99" in note]
    assert "the median over the visits of the p99 of each, of 300 requests" in note
    assert not any("median over the visits" in note for note in story.list_notes(make_served()))


def test_an_undecided_race_says_what_could_not_be_told_from_the_best() -> None:
    result = make_served().result
    assert result is not None
    behind = result.model_copy(update={"best_row": 2, "final_rounds": 7})
    assert sum_up_undecided(behind, "1 worker", "best").startswith(
        "Inconclusive: 1 worker was best, but the default could be neither separated from it"
    )
    ahead = result.model_copy(update={"best_row": 1, "unclear": (2, 8, 9)})
    assert sum_up_undecided(ahead, "default", "best").startswith(
        "Inconclusive: the default was best, but 3 other settings could be neither separated"
    )
