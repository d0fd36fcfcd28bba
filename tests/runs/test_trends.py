"""Figures over all runs: which belong together, where their level changed, and their pages."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opslib.core.host import GpuFacts
from opslib.runs.catalogue import marker_of, scan_runs
from opslib.runs.index import build_index
from opslib.runs.run_record import RUN_FILE
from opslib.runs.trend_pages import TRENDS_FOLDER, build_trends
from opslib.runs.trends import Trend, list_trends
from opslib.telling.scraps import Scrap
from opslib.timing.steps import find_steps
from tests.runs.makers import make_lineage, make_run, write_run


def write_series(root: Path, values: list[float], *, start: int = 0, **changes: Any) -> list[Path]:
    """Write one run for each value, a minute apart, and return their folders."""
    scrap = {"name": "p50", "unit": "ms", "better": "lower", "label": "Median", **changes}
    run = {name: scrap.pop(name) for name in ("lineage", "parameters") if name in scrap}
    return [
        write_run(
            root,
            make_run(start + at, key_figures=(Scrap(value=value, **scrap),)).model_copy(update=run),
        )
        for at, value in enumerate(values)
    ]


def noisy(level: float, count: int, seed: int = 0) -> list[float]:
    """Return values one percent around a level."""
    rng = random.Random(seed)
    return [level * (1 + rng.gauss(0, 0.01)) for _ in range(count)]


def only_trend(root: Path) -> Trend:
    """Return the one trend of a report folder."""
    (trend,) = list_trends(scan_runs(root))
    return trend


def test_a_step_is_dated_sized_and_called_worse(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 20) + noisy(11, 12, seed=1))
    trend = only_trend(tmp_path)
    (step,) = trend.steps
    assert (step.at, step.better) == (20, False)
    assert step.after / step.before == pytest.approx(1.1, rel=0.02)


def test_a_step_was_told_once_any_of_the_runs_until_then_told_it(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 20) + noisy(11, 12, seed=1))
    trend = only_trend(tmp_path)
    (step,) = trend.steps
    told = [trend.was_told(step, runs) for runs in range(33)]
    first = told.index(True)
    assert 20 < first <= 24
    assert told == [False] * first + [True] * (33 - first)


def test_a_step_that_more_runs_made_doubtful_for_a_while_stays_told(tmp_path: Path) -> None:
    values = noisy(10, 20, seed=21) + noisy(10.2, 10, seed=521)
    places = [find_steps(np.log(values[:count])) for count in (27, 28, 30)]
    assert places == [(20,), (), (20,)]
    write_series(tmp_path, values)
    trend = only_trend(tmp_path)
    assert trend.was_told(trend.steps[0], 28)


def test_more_of_what_should_be_high_is_better(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 20) + noisy(11, 12, seed=1), better="higher", unit="img/s")
    assert only_trend(tmp_path).steps[0].better


def test_a_share_changes_by_points_and_may_be_zero(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 0.1] * 6 + [2.0, 2.1] * 5, unit="pp", label="Drop")
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / only_trend(tmp_path).page).read_text()
    assert "points" in page


def test_runs_of_another_host_or_other_parameters_are_never_one_line(tmp_path: Path) -> None:
    write_series(tmp_path, [1.0, 1.0])
    write_series(tmp_path, [2.0, 2.0], start=10, lineage=make_lineage(cpu="Another"))
    write_series(tmp_path, [3.0, 3.0], start=20, parameters={"batch": "8"})
    write_series(tmp_path, [4.0, 4.0], start=30, unit="s")
    assert sorted(trend.values for trend in list_trends(scan_runs(tmp_path))) == [
        (1.0, 1.0),
        (2.0, 2.0),
        (3.0, 3.0),
        (4.0, 4.0),
    ]


def test_hosts_of_equal_hardware_have_a_line_each_where_their_names_are_known(
    tmp_path: Path,
) -> None:
    write_series(tmp_path, [1.0, 1.0], lineage=make_lineage(name="one"))
    write_series(tmp_path, [2.0, 2.0], start=10, lineage=make_lineage(name="other"))
    found = {trend.host_name: trend for trend in list_trends(scan_runs(tmp_path))}
    assert {name: trend.values for name, trend in found.items()} == {
        "one": (1.0, 1.0),
        "other": (2.0, 2.0),
    }
    assert found["one"].page != found["other"].page
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / found["one"].page).read_text()
    assert "on one (A Processor, 2 cores)" in page


def test_runs_without_a_name_belong_to_the_one_host_of_their_hardware_or_to_none(
    tmp_path: Path,
) -> None:
    write_series(tmp_path, [1.0, 1.0])
    write_series(tmp_path, [2.0], start=10, lineage=make_lineage(name="one"))
    assert only_trend(tmp_path).values == (1.0, 1.0, 2.0)
    write_series(tmp_path, [3.0], start=20, lineage=make_lineage(name="other"))
    found = {trend.host_name: trend.values for trend in list_trends(scan_runs(tmp_path))}
    assert found == {None: (1.0, 1.0), "one": (2.0,), "other": (3.0,)}


def test_a_run_that_was_pulled_from_a_host_is_of_that_host(tmp_path: Path) -> None:
    for folder in write_series(tmp_path, [1.0, 1.0], lineage=make_lineage(name="vm")):
        marker_of(folder / RUN_FILE).write_text("gpu-2")
    write_series(tmp_path, [2.0, 2.0], start=10, lineage=make_lineage(name="vm"))
    found = {trend.host_name: trend.values for trend in list_trends(scan_runs(tmp_path))}
    assert found == {"gpu-2": (1.0, 1.0), "vm": (2.0, 2.0)}


def test_a_renewed_driver_is_the_same_host_and_named_at_the_step(tmp_path: Path) -> None:
    for start, driver, level in ((0, "570.1", 10), (20, "580.2", 11)):
        lineage = make_lineage(fingerprint=driver.ljust(12, "0"))
        card = GpuFacts(name="A Card", driver=driver, memory_bytes=1 << 34)
        host = lineage.host.model_copy(update={"gpus": (card,)})
        lineage = lineage.model_copy(update={"host": host})
        write_series(tmp_path, noisy(level, 12, start), start=start, lineage=lineage)
    trend = only_trend(tmp_path)
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / trend.page).read_text()
    assert len(trend.values) == 24
    assert "driver: 570.1 → 580.2" in page


def test_a_step_names_the_commit_and_packages_that_changed_with_it(tmp_path: Path) -> None:
    old, new = make_lineage(), make_lineage()
    new = new.model_copy(update={"git_sha": "fedcba9", "versions": {"numpy": "2.5"}})
    write_series(tmp_path, noisy(10, 12), lineage=old)
    write_series(tmp_path, noisy(12, 12), start=12, lineage=new)
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / only_trend(tmp_path).page).read_text()
    assert "commit: 0123abc → fedcba9" in page
    assert "numpy: 2.4 → 2.5" in page


def test_every_link_of_the_pages_leads_somewhere(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 12) + noisy(12, 12))
    build_index(tmp_path)
    pages = [tmp_path / "index.html", *(tmp_path / TRENDS_FOLDER).glob("*.html")]
    assert len(pages) == 3
    for page in pages:
        for href in re.findall(r'href="([^"#]+)"', page.read_text()):
            assert href == "data:," or (page.parent / href).exists(), (page, href)


def test_only_the_pages_that_a_run_belongs_to_are_written_again(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 8))
    write_series(tmp_path, noisy(20, 8), start=10, parameters={"batch": "8"})
    build_index(tmp_path)
    before = {path: path.stat().st_ino for path in (tmp_path / TRENDS_FOLDER).glob("01*.html")}
    write_series(tmp_path, [10.0], start=30)
    build_index(tmp_path)
    after = {path: path.stat().st_ino for path in (tmp_path / TRENDS_FOLDER).glob("01*.html")}
    assert before.keys() == after.keys()
    assert sum(before[path] != after[path] for path in before) == 1


def test_a_page_without_runs_goes(tmp_path: Path) -> None:
    folders = write_series(tmp_path, [1.0, 2.0])
    (page,) = build_trends(tmp_path, scan_runs(tmp_path))
    shutil.rmtree(folders[0])
    build_index(tmp_path)
    assert not (tmp_path / TRENDS_FOLDER / page.page).exists()


def test_only_what_is_called_like_a_trend_is_removed(tmp_path: Path) -> None:
    write_series(tmp_path, [1.0, 2.0])
    folder = tmp_path / TRENDS_FOLDER
    folder.mkdir()
    for name in ("01-bench-p50-0123abcd.html", "mine.html", "notes.txt"):
        (folder / name).write_text("x")
    (folder / ".pages.json").write_text('{"trends": {"../index.html": {}}}')
    build_index(tmp_path)
    left = {path.name for path in folder.iterdir()}
    assert {"mine.html", "notes.txt", "index.html"} <= left
    assert "01-bench-p50-0123abcd.html" not in left
    assert (tmp_path / "index.html").exists()


def test_figures_whose_names_look_alike_have_pages_of_their_own(tmp_path: Path) -> None:
    for start, changes in enumerate(({"unit": "s"}, {"name": "p_50"}, {"name": "p-50"}, {})):
        write_series(tmp_path, [1.0, 2.0], start=10 * start, **changes)
    build_index(tmp_path)
    assert len(list((tmp_path / TRENDS_FOLDER).glob("01*.html"))) == 4


def test_changed_parameters_are_named_beside_the_figure(tmp_path: Path) -> None:
    run = make_run(1, parameters={"batch": "8"}, changed_parameters=("batch",))
    for number in (1, 2):
        write_run(tmp_path, run.model_copy(update={"id": make_run(number).id}))
    assert only_trend(tmp_path).label == "Median, batch 1 (batch=8)"


def test_too_few_runs_are_not_called_level(tmp_path: Path) -> None:
    write_series(tmp_path, [10.0, 20.0])
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / only_trend(tmp_path).page).read_text()
    assert "Too few runs to tell a step: 2 of 6." in page


def test_a_number_beyond_every_float_takes_no_part(tmp_path: Path) -> None:
    write_series(tmp_path, [10**400, 10**400])  # type: ignore[list-item]
    assert list_trends(scan_runs(tmp_path)) == []


def test_a_run_that_is_gone_when_its_step_is_explained_is_said(tmp_path: Path) -> None:
    folders = write_series(tmp_path, noisy(10, 12) + noisy(12, 12))
    rows = scan_runs(tmp_path)
    (folders[11] / RUN_FILE).unlink()
    (page,) = build_trends(tmp_path, rows)
    assert "no longer there" in (tmp_path / TRENDS_FOLDER / page.page).read_text()


def test_what_cannot_be_placed_in_time_takes_no_part(tmp_path: Path) -> None:
    folders = write_series(tmp_path, noisy(10, 8))
    (folders[0] / RUN_FILE).write_text('{"schema": "run/99"}')
    later = make_run(40).model_copy(update={"started": "2096-01-01T00:00:00Z"})
    write_run(tmp_path, later)
    write_run(tmp_path, make_run(41, status="timeout", exit_code=5))
    assert len(only_trend(tmp_path).values) == 7


def test_two_runs_of_one_moment_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    scraps = [(Scrap(name="p50", value=value, unit="ms", better="lower"),) for value in (1.0, 2.0)]
    for number, figures in zip((7, 8), scraps, strict=True):
        run = make_run(number, key_figures=figures)
        write_run(tmp_path, run.model_copy(update={"started": "2026-01-01T10:00:00Z"}))
    assert only_trend(tmp_path).values == (1.0, 2.0)


def test_the_index_shows_the_trend_of_the_newest_answer(tmp_path: Path) -> None:
    write_series(tmp_path, noisy(10, 20) + noisy(12, 12, seed=1))
    page = build_index(tmp_path).read_text()
    assert "32 runs" in page
    assert 'class="spark"' in page
    assert "last step" in page


def test_a_long_trend_draws_its_intervals_as_a_band_and_lists_its_newest_runs(
    tmp_path: Path,
) -> None:
    write_series(tmp_path, noisy(1, 60), interval=(0.9, 1.1))
    write_series(tmp_path, noisy(1, 5), start=60)
    write_series(tmp_path, noisy(1, 145), start=65, interval=(0.9, 1.1))
    build_index(tmp_path)
    page = (tmp_path / TRENDS_FOLDER / only_trend(tmp_path).page).read_text()
    assert page.count('class="band-95"') == 2  # none over runs that said no interval
    assert 'class="bar-95"' not in page
    assert "<h2>Newest 200 of 210 runs</h2>" in page
    assert page.count("<tr><td>") == 200
