"""The pages as a browser shows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from opslib.runs.html import render_report
from opslib.runs.index import build_index
from opslib.runs.run_record import RunChange, RunProblem
from opslib.telling.figures import figure_html, table_html, verdict_html
from opslib.telling.themes import DARK, LIGHT
from tests.runs.browser import open_browser, open_page, serious_violations
from tests.runs.makers import make_run, publish_cell, toy_notebook, write_run
from tests.runs.test_trends import write_series
from tests.telling.test_figures import draw

pytestmark = pytest.mark.chromium
HOSTILE = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>"
VIEWS = [(width, scheme) for width in (390, 1440) for scheme in ("light", "dark")]
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report folder with a full report, a failed one, hostile texts and an index."""
    root = tmp_path_factory.mktemp("reports")
    frame = pd.DataFrame({f"column {n}": [n, n + 1] for n in range(12)})
    outputs = [
        new_output("display_data", data={"text/html": table_html(frame, caption="A wide table")}),
        new_output("display_data", data={"text/html": figure_html(draw, alt="It goes down.")}),
        new_output("display_data", data={"text/html": verdict_html("pass", "Fine.")}),
        new_output("display_data", data={"text/html": frame.to_html() + HOSTILE}),
        new_output("display_data", data={"text/markdown": HOSTILE}),
        new_output("stream", name="stdout", text=f"\x1b[31mred\x1b[0m {HOSTILE}"),
        new_output("stream", name="stderr", text="a warning\n"),
        new_output("error", ename="E", evalue="no", traceback=["\x1b[32mE\x1b[0m: no"]),
    ]
    notebook = toy_notebook(publish_cell())
    notebook.cells.append(new_markdown_cell(f"#### Deep\n\n{HOSTILE}\n\n[a link](x.html)"))
    notebook.cells.append(new_code_cell("x = 1  # " + "long " * 60, outputs=outputs))
    change = RunChange(
        against_id="a",
        against_path="2026-01-01/x/01_bench.html",
        better=0,
        worse=1,
        unchanged=3,
        not_comparable=0,
        summary="1 row worse, 3 rows without a measurable change",
    )
    problem = RunProblem(message="The kernel died during code cell 3.", cell=3)
    runs = [
        make_run(1, change=change, parameters={"batch": "1,2", "x": HOSTILE}),
        make_run(2, status="kernel_died", exit_code=138, problem=problem),
        make_run(3, verdict="inconclusive", exit_code=4, finding="Too noisy to say."),
        make_run(4, verdict="fail", exit_code=3, notebook="03_quantize", title="Is it right?"),
    ]
    for run in runs:
        folder = write_run(root, run)
        (folder / run.report_name).write_text(render_report(notebook, run, files=("run.json",)))
    build_index(root)
    return root


@pytest.fixture(scope="module")
def trend_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A figure's trend with a step, and the list of trends."""
    root = tmp_path_factory.mktemp("trends")
    write_series(root, [10.0, 10.1, 10.0, 12.0, 12.1, 12.0])
    build_index(root)
    return root / "trends"


def names(root: Path) -> list[Path]:
    return [*sorted(root.rglob("*.html"))]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_every_page_is_clean_in_every_view(
    browser: Any, pages: Path, trend_pages: Path, width: int, scheme: Scheme
) -> None:
    with open_page(browser, width=width, scheme=scheme) as watched:
        for path in [*names(pages), *names(trend_pages)]:
            watched.requests.clear()
            watched.page.goto(path.as_uri())
            assert watched.console == [], path
            assert [url for url in watched.requests if not url.startswith("data:")] == [
                path.as_uri()
            ]
            assert watched.page.evaluate("window.hit") is None
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious_violations(watched.page) == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_figure_of_the_readers_theme_is_shown(
    browser: Any, pages: Path, scheme: Scheme
) -> None:
    theme = {"light": LIGHT, "dark": DARK}[scheme]
    with open_page(browser, scheme=scheme) as watched:
        watched.page.goto(report(pages).as_uri())
        image = watched.page.locator(".pillops-figure img")
        source = image.evaluate("image => atob(image.currentSrc.split(',')[1])")
        assert theme.surface in source
        assert image.evaluate("image => image.naturalWidth") > 0


def test_the_answer_is_on_the_first_screen_of_a_phone(browser: Any, pages: Path) -> None:
    with open_page(browser, width=390) as watched:
        watched.page.goto(report(pages).as_uri())
        box = watched.page.locator(".answer").bounding_box()
        assert box["y"] + box["height"] < 700


def test_hostile_text_is_read_as_text(browser: Any, pages: Path) -> None:
    with open_page(browser) as watched:
        watched.page.goto(report(pages).as_uri())
        watched.page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert watched.page.get_by_text("window.hit=1").count() >= 4
        assert watched.page.locator("script").count() == 0


def test_a_failed_report_leads_to_its_cell_by_keyboard(browser: Any, pages: Path) -> None:
    with open_page(browser) as watched:
        watched.page.goto(report(pages, "000002").as_uri())
        watched.page.keyboard.press("Tab")
        assert watched.page.evaluate("document.activeElement.className") == "skip"
        watched.page.keyboard.press("Enter")
        assert watched.page.evaluate("document.activeElement.id") == "content"
        watched.page.get_by_role("link", name="code cell 3").click()
        assert watched.page.url.endswith("#failed")


def test_the_index_filters_by_words_and_by_verdict(browser: Any, pages: Path) -> None:
    with open_page(browser) as watched:
        page = watched.page
        page.goto((pages / "index.html").as_uri())
        shown = page.locator("#runs tbody tr:visible")
        assert shown.count() == 4
        page.keyboard.press("/")
        page.keyboard.type("bench noisy")
        assert shown.count() == 1
        assert page.locator("#count").inner_text() == "1 of 4 runs"
        page.keyboard.press("Escape")
        assert shown.count() == 4
        page.get_by_label("Verdict").select_option("Fail")
        assert shown.count() == 1
        page.get_by_label("Verdict").select_option("did not finish")
        assert shown.count() == 1
        page.get_by_label("Find in runs").fill("nothing like it")
        assert page.get_by_text("No run fits.").is_visible()


def test_each_row_of_the_index_opens_its_report(browser: Any, pages: Path) -> None:
    with open_page(browser) as watched:
        page = watched.page
        page.goto((pages / "index.html").as_uri())
        page.locator("#runs tbody tr").first.get_by_role("link").click()
        assert page.title() == "Fail: Is it right?"
        page.get_by_role("link", name="All reports").click()
        assert page.title() == "PillSnap Ops reports"


def test_without_script_every_run_is_still_listed(browser: Any, pages: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "index.html").as_uri())
    assert page.locator("#runs tbody tr").count() == 4
    assert not page.locator(".bar").is_visible()
    context.close()


def test_a_printed_report_opens_with_its_answer(browser: Any, pages: Path) -> None:
    with open_page(browser) as watched:
        watched.page.emulate_media(media="print")
        watched.page.goto(report(pages).as_uri())
        assert watched.page.locator(".answer").is_visible()
        assert not watched.page.locator(".code").first.is_visible()


def report(root: Path, end: str = "000001") -> Path:
    return next(root.glob(f"*/*{end}/*.html"))
