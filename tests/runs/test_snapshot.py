import re
from pathlib import Path
from typing import Any

import pytest

from opslib.core.errors import InputError
from opslib.core.plans import carry_out
from opslib.ops.bench.compare import compare_records
from opslib.ops.bench.record import BenchRecord
from opslib.runs.cite import MAX_CITED_BYTES, cite_run, is_cited
from opslib.runs.run_record import RUN_FILE, RunRecord
from opslib.runs.snapshot import plan_snapshot
from tests.runs.makers import (
    bench_row,
    jitter,
    make_bench,
    make_lineage,
    make_run,
    write_run,
)

DOCUMENT = "# Performance\n\n<!-- snapshot:bench -->\nold\n<!-- /snapshot -->\n\nAfter.\n"


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Path]:
    root = tmp_path / "reports"
    root.mkdir()
    document = tmp_path / "docs" / "PERFORMANCE.md"
    document.parent.mkdir()
    document.write_text(DOCUMENT)
    return document, root


def add(root: Path, number: int, p50_ms: float = 2.0, **changes: Any) -> Path:
    lineage = changes.get("lineage") or make_lineage()
    bench = make_bench([bench_row(p50_ms)], lineage=lineage)
    return write_run(root, make_run(number, **changes), bench)


def take(document: Path, root: Path) -> None:
    carry_out(plan_snapshot([document], root), dry_run=False, show=lambda _line: None)


def test_the_table_shows_the_newest_run_linked_to_it_and_to_its_commit(
    project: tuple[Path, Path],
) -> None:
    document, root = project
    add(root, 1, 9.0)
    add(root, 2, 2.5)
    take(document, root)
    text = document.read_text()
    assert (
        "| A Processor, 2 cores | model.onnx | ONNX Runtime | CPU | inference | 1 | "
        "2.50 (2.48–2.52) | – | 400 |" in text
    )
    assert "`0123abc` |" in text
    assert "9.00" not in text
    assert text.startswith("# Performance\n\n<!-- snapshot:bench -->\n| Host |")
    assert text.endswith("<!-- /snapshot -->\n\nAfter.\n")
    link = re.search(r"\]\(([^)]+)\)", text)
    assert link is not None
    assert (document.parent / link[1]).is_file()


def test_taking_it_again_changes_nothing(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1)
    assert plan_snapshot([document], root).actions
    take(document, root)
    assert plan_snapshot([document], root).actions == ()


def test_the_ends_of_lines_stay_as_the_document_has_them(project: tuple[Path, Path]) -> None:
    document, root = project
    document.write_bytes(DOCUMENT.replace("\n", "\r\n").encode())
    add(root, 1)
    take(document, root)
    assert document.read_bytes().count(b"\n") == document.read_bytes().count(b"\r\n") > 8
    assert plan_snapshot([document], root).actions == ()


def test_a_fresh_clone_with_the_cited_runs_alone_is_current(project: tuple[Path, Path]) -> None:
    document, root = project
    folder = add(root, 1)
    take(document, root)
    for path in folder.iterdir():
        path.unlink()
    assert plan_snapshot([document], root).actions == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "timeout", "exit_code": 5},
        {"verdict": "fail", "exit_code": 3},
        {"verdict": "inconclusive", "exit_code": 4},
    ],
)
def test_a_run_that_did_not_succeed_is_never_shown(
    project: tuple[Path, Path], changes: dict[str, Any]
) -> None:
    document, root = project
    add(root, 2, 9.0, **changes)
    with pytest.raises(InputError, match="no successful run"):
        plan_snapshot([document], root)
    add(root, 1, 2.5)
    take(document, root)
    assert "2.50" in document.read_text()
    assert "9.00" not in document.read_text()


def test_a_newer_run_is_drift_and_replaces_the_citation(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1, 2.5)
    take(document, root)
    add(root, 2, 3.5)
    plan = plan_snapshot([document], root)
    assert [action.verb for action in plan.actions] == ["cite", "rewrite", "remove"]
    take(document, root)
    assert "3.50" in document.read_text()
    assert [path.name for path in (root / "cited").iterdir()] == [make_run(2).id]


def test_a_damaged_citation_is_drift(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1)
    take(document, root)
    (root / "cited" / make_run(1).id / "01_bench.html").write_text("changed")
    assert not is_cited(root, make_run(1).id)
    assert [action.verb for action in plan_snapshot([document], root).actions] == ["cite"]


def test_each_host_keeps_its_own_newest_run(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1, 2.5)
    add(root, 2, 0.25, lineage=make_lineage("ffffffffffff", "Big Processor"))
    take(document, root)
    text = document.read_text()
    assert "| A Processor, 2 cores |" in text
    assert "| Big Processor, 2 cores |" in text
    assert len(list((root / "cited").iterdir())) == 2


def test_a_run_with_other_parameters_stands_behind_one_with_the_notebooks_own(
    project: tuple[Path, Path],
) -> None:
    document, root = project
    add(root, 2, 9.0, changed_parameters=("batch",))
    take(document, root)
    assert "9.00" in document.read_text()
    add(root, 1, 2.5)
    take(document, root)
    assert "2.50" in document.read_text()


def test_a_document_without_a_known_block_is_refused(project: tuple[Path, Path]) -> None:
    document, root = project
    document.write_text("nothing")
    with pytest.raises(InputError, match="no <!-- snapshot:bench"):
        plan_snapshot([document], root)
    document.write_text("<!-- snapshot:nope -->\n<!-- /snapshot -->")
    with pytest.raises(InputError, match="'nope' is unknown; known: bench"):
        plan_snapshot([document], root)
    with pytest.raises(InputError, match="no such document"):
        plan_snapshot([document.with_name("missing.md")], root)


def test_a_cited_page_has_no_link_that_a_clone_lacks(tmp_path: Path) -> None:
    run = make_run(1)
    source = write_run(tmp_path, run, make_bench())
    (source / run.report_name).write_text(
        '<p><!--files--><a href="../../index.html">All</a><!--/files-->'
        '<!--since-->Since <a href="../../x.html">the last</a><!--/since-->: fine</p>'
    )
    cite_run(source, tmp_path)
    cited = tmp_path / "cited" / run.id
    assert (cited / run.report_name).read_text() == "<p>Since the last comparable run: fine</p>"
    assert is_cited(tmp_path, run.id)


def test_what_the_host_is_called_stays_out_of_a_cited_run(tmp_path: Path) -> None:
    lineage = make_lineage(name="gpu-7")
    source = write_run(tmp_path, make_run(1, lineage=lineage), make_bench(lineage=lineage))
    page = source / make_run(1).report_name
    page.write_text("<dd><!--name-->gpu-7, <!--/name-->A Processor</dd>")
    cite_run(source, tmp_path)
    cited = list((tmp_path / "cited" / make_run(1).id).iterdir())
    assert len(cited) == 3
    assert not [path.name for path in cited if "gpu-7" in path.read_text()]
    assert is_cited(tmp_path, make_run(1).id)


def test_a_large_record_is_cited_with_its_block_medians(tmp_path: Path) -> None:
    rows = [
        bench_row(2.0, batch_size=size, raw_ms=tuple(jitter(2.0, 0.1, 6000, n) for n in range(4)))
        for size in (1, 2)
    ]
    bench = make_bench(rows)
    source = write_run(tmp_path, make_run(1), bench)
    large = next(source.glob("bench*.json"))
    assert large.stat().st_size > MAX_CITED_BYTES
    cite_run(source, tmp_path)
    cited = tmp_path / "cited" / make_run(1).id / large.name
    assert cited.stat().st_size < 20_000
    assert compare_records(bench, BenchRecord.read(cited)).count("no measurable change") == 2


def test_one_document_of_several_removes_no_run_that_another_may_show(
    project: tuple[Path, Path],
) -> None:
    document, root = project
    add(root, 1)
    take(document, root)
    add(root, 2)
    plan = plan_snapshot([document], root, others=True)
    assert [action.verb for action in plan.actions] == ["cite", "rewrite"]


def test_where_a_run_cannot_be_cited_no_document_links_to_it_and_what_was_cited_stays(
    project: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, root = project
    add(root, 1)
    take(document, root)
    before = document.read_bytes()
    add(root, 2)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opslib.runs.snapshot.cite_run", refuse)
    plan = plan_snapshot([document], root)
    outcome = plan.execute()
    assert outcome.done == ()
    assert [one.reason for one in outcome.skipped] == [
        "No space left on device",
        *[f"cited/{make_run(2).id} was skipped before it"] * 2,
    ]
    assert document.read_bytes() == before
    assert is_cited(root, make_run(1).id)


def test_a_damaged_citation_stays_where_none_can_take_its_place(tmp_path: Path) -> None:
    source = write_run(tmp_path, make_run(1), make_bench())
    cite_run(source, tmp_path)
    page = tmp_path / "cited" / make_run(1).id / make_run(1).report_name
    page.write_text("damaged")
    (source / make_run(1).report_name).write_text("x" * (MAX_CITED_BYTES + 1))
    with pytest.raises(InputError, match="at most 500 KiB"):
        cite_run(source, tmp_path)
    assert page.read_text() == "damaged"


def test_a_page_over_the_limit_is_not_cited_and_leaves_nothing(tmp_path: Path) -> None:
    run = make_run(1)
    source = write_run(tmp_path, run, make_bench())
    (source / run.report_name).write_text("x" * (MAX_CITED_BYTES + 1))
    with pytest.raises(InputError, match="at most 500 KiB"):
        cite_run(source, tmp_path)
    assert list((tmp_path / "cited").iterdir()) == []


def test_the_cited_record_lists_the_files_that_were_copied(tmp_path: Path) -> None:
    source = write_run(tmp_path, make_run(1), make_bench())
    (source / "kernel.log").write_text("noise")
    cite_run(source, tmp_path)
    run = RunRecord.read(tmp_path / "cited" / make_run(1).id / RUN_FILE)
    assert {entry.path for entry in run.files} == {"01_bench.html", run.record}


OPEN, CLOSE = "<!-- snapshot:bench -->", "<!-- /snapshot -->"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{OPEN}\nprose\n{OPEN}\nold\n{CLOSE}\n", r"line 1: the block 'bench' has no"),
        (f"{OPEN}\nold\n{CLOSE}\n\n{OPEN}\nprose\n", r"line 5: the block 'bench' has no"),
        (f"{OPEN}\nold\n<!-- /snapshot->\n", r"line 3: malformed .* in the block 'bench'"),
        (f"<!--snapshot:bench-->\nold\n{CLOSE}\n", r"line 1: malformed marker"),
        (f"prose {OPEN}\nold\n{CLOSE}\n", r"line 1: malformed marker"),
        (f"{OPEN}\nold\n{CLOSE}\n{CLOSE}\n", r"line 4: .*ends no block"),
    ],
)
def test_a_marker_without_its_partner_is_refused_by_line_and_nothing_is_written(
    project: tuple[Path, Path], text: str, words: str
) -> None:
    document, root = project
    add(root, 1)
    document.write_text(text)
    with pytest.raises(InputError, match=words):
        take(document, root)
    assert document.read_text() == text
    assert not (root / "cited").exists()


def test_prose_may_name_a_marker_as_code(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1)
    document.write_text(f"Between `{OPEN}` and `{CLOSE}`.\n{DOCUMENT}")
    take(document, root)
    assert document.read_text().startswith(f"Between `{OPEN}` and `{CLOSE}`.\n# Performance")


@pytest.fixture
def both(project: tuple[Path, Path]) -> tuple[list[Path], Path]:
    """The document and its Korean twin, a folder deeper."""
    document, root = project
    twin = document.parent / "ko" / document.name
    twin.parent.mkdir()
    twin.write_text("# 성능\n\n<!-- snapshot:bench -->\n옛것\n<!-- /snapshot -->\n")
    return [document, twin], root


def test_both_languages_are_written_by_one_plan_each_with_links_of_its_folder(
    both: tuple[list[Path], Path],
) -> None:
    documents, root = both
    add(root, 1, 2.5)
    plan = plan_snapshot(documents, root)
    assert [(one.verb, one.target) for one in plan.actions[1:]] == [
        ("rewrite", "PERFORMANCE.md"),
        ("rewrite", "ko/PERFORMANCE.md"),
    ]
    carry_out(plan, dry_run=False, show=lambda _line: None)
    english, korean = (one.read_text() for one in documents)
    assert korean.startswith("# 성능\n\n<!-- snapshot:bench -->\n| Host |")
    assert [line for line in english.replace("](../", "](../../").splitlines() if "|" in line] == [
        line for line in korean.splitlines() if "|" in line
    ]
    for document, text in zip(documents, (english, korean), strict=True):
        link = re.search(r"\]\(([^)]+)\)", text)
        assert link is not None
        assert (document.parent / link[1]).is_file()
    assert plan_snapshot(documents, root).actions == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such document"),
        ("# 성능\n", "has no <!-- snapshot:bench"),
        ("<!-- snapshot:bench -->\n", "line 1: the block 'bench' has no"),
        ("<!-- snapshot:nope -->\n<!-- /snapshot -->", "'nope' is unknown"),
        (
            f"{OPEN}\n{CLOSE}\n<!-- snapshot:sweep -->\n{CLOSE}\n",
            "no successful run for the table 'sweep'",
        ),
    ],
)
def test_where_one_language_is_missing_or_malformed_neither_is_written(
    both: tuple[list[Path], Path], text: str | None, words: str
) -> None:
    (document, twin), root = both
    add(root, 1)
    for first, second in ((document, twin), (twin, document)):
        first.write_text(DOCUMENT)
        if text is None:
            second.unlink()
        else:
            second.write_text(text)
        with pytest.raises(InputError, match=words):
            plan_snapshot([document, twin], root)
        assert first.read_text() == DOCUMENT
    assert not (root / "cited").exists()


def test_a_run_that_one_language_alone_shows_stays_cited(both: tuple[list[Path], Path]) -> None:
    documents, root = both
    add(root, 1)
    carry_out(plan_snapshot(documents, root), dry_run=False, show=lambda _line: None)
    documents[0].write_text(DOCUMENT)
    plan = plan_snapshot(documents, root)
    assert [(one.verb, one.target) for one in plan.actions] == [("rewrite", "PERFORMANCE.md")]


def test_only_folders_that_a_citation_made_are_removed(project: tuple[Path, Path]) -> None:
    document, root = project
    add(root, 1)
    take(document, root)
    add(root, 2)
    cited = root / "cited"
    (cited / "photographs").mkdir()
    (cited / "photographs" / "one.txt").write_text("mine")
    (cited / "broken").mkdir()
    (cited / "broken" / RUN_FILE).write_text("{")
    (cited / make_run(1).id / "deeper").mkdir()
    take(document, root)
    kept = {path.name for path in cited.iterdir()}
    assert kept == {"photographs", "broken", make_run(1).id, make_run(2).id}
