import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from opslib.runs.html import find_title, render_report
from opslib.runs.run_record import RunProblem, RunRecord
from opslib.runs.sanitize import clean_html, order_headings
from opslib.telling.figures import table_html
from tests.runs.makers import make_run, publish_cell, toy_notebook

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)><b onclick=alert(1)>b</b>"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def render(*outputs: Any, run: RunRecord | None = None, markdown: str = "") -> str:
    notebook = toy_notebook(publish_cell())
    notebook.cells.append(new_markdown_cell(markdown))
    notebook.cells.append(new_code_cell("show()", execution_count=2, outputs=list(outputs)))
    return render_report(notebook, run or make_run(), files=("run.json", "kernel.log"))


def shown(**data: str) -> Any:
    return new_output("display_data", data={key.replace("_", "/"): v for key, v in data.items()})


def test_the_answer_stands_before_everything_else() -> None:
    html = render()
    body = html[html.index("<body") :]
    order = [
        body.index(text)
        for text in ("How fast does", ">Pass<", "in time.", "Median, batch 1", "0123abc", "It asks")
    ]
    assert order == sorted(order)


def test_the_page_makes_no_request_and_runs_no_script() -> None:
    for tag, attributes in tags(render(shown(text_html=table_html(pd.DataFrame(), caption="c")))):
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset"):
            assert str(attributes.get(name) or "data:").startswith("data:")
        if tag == "link":
            assert attributes["href"] == "data:,"


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    html = render()
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in tags(html) if a.get("http-equiv"))
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_page_is_small_beside_its_figures() -> None:
    assert len(render().encode()) < 60_000


@pytest.mark.parametrize(
    "output",
    [
        shown(text_html=HOSTILE),
        shown(text_markdown=HOSTILE),
        shown(text_plain=HOSTILE),
        shown(text_latex=HOSTILE),
        shown(**{"application_javascript": "alert(1)"}),
        new_output("stream", name="stdout", text=HOSTILE),
        new_output("stream", name="stderr", text=HOSTILE),
        new_output("error", ename="E", evalue=HOSTILE, traceback=[HOSTILE]),
    ],
)
def test_hostile_output_is_shown_as_text(output: Any) -> None:
    found = tags(render(output))
    assert not any(tag == "script" for tag, _ in found)
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)


def test_hostile_text_in_the_record_and_in_markdown_is_shown_as_text() -> None:
    run = make_run(
        title=HOSTILE,
        finding=HOSTILE,
        parameters={"x": HOSTILE},
        evidence={"model": HOSTILE},
        id=HOSTILE,
    )
    found = tags(render(run=run, markdown=f"{HOSTILE}\n\n[x](javascript:alert(1))"))
    assert not any(tag == "script" for tag, _ in found)
    assert not any(name.startswith("on") for _, attributes in found for name in attributes)
    assert not any("javascript" in str(a.get("href")) for _, a in found)


def test_images_from_elsewhere_are_left_out_by_name() -> None:
    html = render(markdown="![x](https://example.org/x.png) <img src='file:///etc/x'>")
    assert "example.org" not in html
    assert html.count("an image from outside this report") == 2


def test_a_link_to_a_file_beside_the_notebook_becomes_text() -> None:
    html = render(markdown="see [docs/X.md](../docs/X.md) and [out](https://example.org/)")
    assert "see docs/X.md and" in html
    links = [attributes.get("href") for tag, attributes in tags(html) if tag == "a"]
    assert "https://example.org/" in links
    assert not [link for link in links if link and "docs/X.md" in link]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain.png", "plain.png"),
        ("my image.png", "my%20image.png"),
        ("my image.png", "my image.png"),
        ("\uc54c\uc57d.png", "\uc54c\uc57d.png"),
        ("\uc54c\uc57d.png", "%EC%95%8C%EC%95%BD.png"),
        ("a.png", 'a.png "with a title"'),
        ("a.png", "a.png 'with a title'"),
        ("my (1).png", "my%20(1).png"),
        ("100%25.png", "100%25.png"),
    ],
)
def test_an_attached_image_is_shown_whatever_its_name(name: str, written: str) -> None:
    notebook = toy_notebook(publish_cell())
    cell = new_markdown_cell(f"![a pill](attachment:{written})")
    cell.attachments = {name: {"image/png": base64.b64encode(b"pixels").decode()}}
    notebook.cells.append(cell)
    images = [
        attributes for tag, attributes in tags(render_report(notebook, make_run())) if tag == "img"
    ]
    assert [one["alt"] for one in images] == ["a pill"]
    assert str(images[0]["src"]).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "written",
    [
        '<img alt="a pill" src="attachment:my%20(1).png" width="300">',
        "<p>\n<IMG SRC='attachment:my (1).png' alt='a pill'/>\n</p>",
        "<img src=attachment:my%20(1).png alt='a pill'>",
        "![a pill][one]\n\n[one]: attachment:my%20(1).png",
        '![a pill][one]\n\n[one]: <attachment:my (1).png> "with a title"',
    ],
)
def test_an_image_attached_by_html_or_by_reference_is_shown(written: str) -> None:
    notebook = toy_notebook(publish_cell())
    cell = new_markdown_cell(written)
    pixels = base64.b64encode(b"pixels").decode()
    cell.attachments = {"my (1).png": {"image/png": pixels}}
    notebook.cells.append(cell)
    page = tags(render_report(notebook, make_run()))
    images = [attributes for tag, attributes in page if tag == "img"]
    assert [one["alt"] for one in images] == ["a pill"]
    assert "".join(str(images[0]["src"]).split()) == f"data:image/png;base64,{pixels}"


def test_one_reference_to_a_missing_image_costs_no_other_image() -> None:
    notebook = toy_notebook(publish_cell())
    cell = new_markdown_cell("![a pill](attachment:a.png) ![b][b]\n\n[b]: attachment:gone.png")
    cell.attachments = {"a.png": {"image/png": base64.b64encode(b"pixels").decode()}}
    notebook.cells.append(cell)
    page = render_report(notebook, make_run())
    assert [one["alt"] for tag, one in tags(page) if tag == "img"] == ["a pill"]


@pytest.mark.parametrize(
    "written", ["![x](attachment:gone.png)", '<img src="attachment:gone.png">']
)
def test_a_missing_attachment_costs_no_page(written: str) -> None:
    assert "Does the toy work?" in render(markdown=f"before\n\n{written}")
    said = render(markdown="![x](attachment:gone%20too.png)")
    for strange in ("![a [b]](attachment:gone.png)", "![a](attachment:)"):
        assert "Does the toy work?" in render(markdown=strange)
    assert "attachment: a word" in render(markdown="attachment: a word")
    assert "the image gone too.png is missing" in said


def test_a_failed_run_shows_its_problem_first_and_opens_the_cell() -> None:
    run = make_run(
        status="timeout",
        exit_code=5,
        verdict=None,
        problem=RunProblem(message="Timed out after 3 s, during code cell 3.", cell=3),
    )
    html = render(run=run)
    body = html[html.index("<body") :]
    assert body.index("Timed out<") < body.index("Timed out after 3 s") < body.index("0123abc")
    assert 'href="#failed"' in body
    assert body.count('id="failed"') == 1
    assert '<details class="code" open' in body


def test_the_title_is_shown_once_and_headings_never_skip() -> None:
    html = render(markdown="#### Deep\n\n# Top again\n\n### Third")
    levels = [int(tag[1]) for tag, _ in tags(html) if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_image_has_a_description_and_every_foreign_table_scrolls() -> None:
    frame = pd.DataFrame({"a": [1]})
    png = new_output("display_data", data={"image/png": "aGVsbG8="})
    html = render(png, shown(text_html=frame.to_html()))
    assert all(attributes.get("alt") for tag, attributes in tags(html) if tag == "img")
    scrolling = [a for t, a in tags(html) if a.get("class") == "scroll"]
    assert any(a.get("aria-label") == "Table" for a in scrolling)
    assert "<style scoped" not in html


def test_scraps_and_marker_cells_leave_no_trace_on_the_page() -> None:
    notebook = toy_notebook(publish_cell())
    notebook.cells.insert(
        0, new_markdown_cell("MARKER", metadata={"tags": ["papermill-error-cell-tag"]})
    )
    scrap = {"application/scrapbook.scrap.json+json": {"name": "a", "data": 1}}
    notebook.cells[-1].outputs = [new_output("display_data", data=scrap)]
    html = render_report(notebook, make_run())
    assert "MARKER" not in html
    assert "scrapbook.scrap" not in html
    assert find_title(notebook, "x") == "Does the toy work?"


def test_given_parameters_are_told_from_the_notebooks_own() -> None:
    run = make_run(parameters={"batch": "1", "engine": "onnx"}, changed_parameters=("batch",))
    html = render(run=run)
    assert html.count("the caller") == 1
    assert "batch = 1" in html


def test_cleaning_keeps_our_tables_and_drops_inline_styles() -> None:
    table = table_html(pd.DataFrame({"a": [1]}), caption="c")
    cleaned = clean_html(table)
    assert 'class="pillops-table"' in cleaned
    assert 'tabindex="0"' in cleaned
    assert "style=" not in cleaned
    assert clean_html("<p class='evil'>x</p>") == "<p>x</p>"
    assert "srcset" not in clean_html('<source media="x" srcset="https://a/b.png">')


def test_headings_keep_their_closing_tags() -> None:
    assert order_headings("<h4>a</h4><h1>b</h1><h6>c</h6>") == ("<h2>a</h2><h2>b</h2><h3>c</h3>")
