"""The pages in Korean: they say so, and what is not of the runs themselves is Korean."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from opslib.runs.catalogue import RunRow
from opslib.runs.html import render_report
from opslib.runs.index import build_index, render_index
from opslib.runs.run_record import RunChange, RunProblem, RunRecord
from opslib.runs.trend_pages import TrendSummary
from tests.korean import find_english, in_korean
from tests.runs.makers import make_run, toy_notebook, write_run
from tests.runs.test_trends import write_series

OF_RUNS = ("batch", "bench", "cores", "ipynb", "json", "numpy", "pillops", "run", "ef" * 32)


def read_text(page: str) -> str:
    """What a page shows, its labels for those who cannot see it too."""
    labels = re.findall(r'(?:aria-label|placeholder|data-words|alt)="([^"]*)"', page)
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", " ".join([body, *labels])))


def left_in(page: str) -> list[str]:
    return [word for word in find_english(read_text(page)) if word not in OF_RUNS]


def korean_run(number: int = 0, **changes: object) -> RunRecord:
    told = {"title": "모델은 얼마나 빠른가?", "finding": "빠르다.", "key_figures": ()}
    return make_run(number, **(told | changes))


def test_a_report_says_its_language_and_its_frame_is_in_it() -> None:
    change = RunChange(
        against_id="a",
        against_path="x/01_bench.html",
        better=0,
        worse=1,
        unchanged=0,
        not_comparable=0,
        summary="1개 행이 나빠졌다",
    )
    problem = RunProblem(message="커널이 중단되었다.", cell=1)
    run = korean_run(
        status="kernel_died", problem=problem, change=change, evidence={"model": "a", "seed": "0"}
    )
    notebook = toy_notebook()
    assert '<html lang="en">' in render_report(notebook, run)
    with in_korean():
        page = render_report(notebook, run, files=("run.json", "kernel.log"))
    assert '<html lang="ko">' in page
    assert '<a href="#failed">코드 셀 1</a>' in page
    assert '<a href="../../x/01_bench.html">비교 가능한 직전 실행</a> 이후' in page
    head, _, rest = page.partition("<main")
    foot = rest.partition("<footer>")[2]
    assert left_in(head) == []
    assert left_in(foot) == []


def test_the_words_of_a_verdict_are_korean_on_pages_and_english_in_records() -> None:
    words = {"pass": "통과", "fail": "실패", "inconclusive": "판정 보류"}
    for verdict, word in words.items():
        run = korean_run(verdict=verdict)
        with in_korean():
            page = render_report(toy_notebook(), run)
        assert f'<span class="badge {verdict}">{word}</span>' in page
        assert f'"verdict": "{verdict}"' in run.to_json()


def test_the_index_is_korean_with_all_that_it_can_show(tmp_path: Path) -> None:
    rows = [
        RunRow(
            id=f"{number}",
            record_path="a",
            href="a",
            notebook="01_bench",
            title="얼마나 빠른가?",
            started=started,
            word=word,
            tone="fail",
            sentence=sentence,
            change="나빠졌다",
            change_tone="worse",
            finished=number > 1,
        )
        for number, (started, word, sentence) in enumerate(
            [
                ("2026-11-01T10:00:00Z", "Pass", "빠르다."),
                ("2026-11-01T10:00:00Z", "Timed out", "늦었다."),
                (
                    "2026-11-01T10:00:00Z",
                    "Finished",
                    "The notebook ran to its end and published no verdict.",
                ),
                ("9999-11-01T10:00:00Z", "Broken", "깨졌다."),
                ("", "Inconclusive", "모른다."),
            ]
        )
    ]
    trend = TrendSummary(
        page="a.html",
        digest="a",
        newest="0",
        notebook="01_bench",
        label="지연 시간",
        host="A",
        unit="ms",
        runs=9,
        last="1",
        spark="",
        step="+8.3 %",
        step_day="2026-11-01",
    )
    assert '<html lang="en">' in render_index(rows)
    with in_korean():
        page = render_index(rows, [trend], hosts={row.id: "A" for row in rows})
        empty = render_index([])
    assert '<html lang="ko">' in page
    assert left_in(page) == []
    assert left_in(empty) == []
    for shown in ("통과", "시간 초과", "완료", "손상됨", "판정 보류"):
        assert f">{shown}</span>" in page
        assert f"<option>{shown}</option>" in page
    assert 'data-words="전체 {total}건 중 {shown}건"' in page


def test_trend_pages_are_written_again_in_another_language(tmp_path: Path) -> None:
    write_series(tmp_path, [1.0, 1.01, 0.99] * 4)
    build_index(tmp_path)
    folder = tmp_path / "trends"
    names = {path.name for path in folder.glob("*.html")}
    assert all('<html lang="en">' in (folder / name).read_text() for name in names)
    with in_korean():
        build_index(tmp_path)
    assert {path.name for path in folder.glob("*.html")} == names
    for name in names:
        page = (folder / name).read_text()
        assert '<html lang="ko">' in page
        shown = page.replace("Median", "").replace("A Processor", "")
        assert not set(left_in(shown)) & {"runs", "level", "step", "steps", "newest", "better"}


def test_a_run_keeps_the_sentence_in_its_language(tmp_path: Path) -> None:
    write_run(tmp_path, korean_run())
    write_run(tmp_path, make_run(1, finding="It is fast."))
    assert "빠르다." in build_index(tmp_path).read_text()
    with in_korean():
        assert "It is fast." in build_index(tmp_path).read_text()
