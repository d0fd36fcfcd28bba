"""The Korean documents say what the English ones say: a change of one alone is found, with both
places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.pairs import MARKDOWN, NOTED, compare, find_changed, note

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("OPS_CHECKLIST.md", "PERFORMANCE.md", "ROLLBACK.md", "SECURITY.md")

ENGLISH = """# Title

A word, `code`, and 3 figures of [a heading](#second), [a file](../LICENSE).

```sh
run --it  # and say so
```

## Second

| item | value |
|---|--:|
| one `key` | 2,000 (±1 %) |

- First.
- Second: [elsewhere](OTHER.md#there), [outside](https://pillsnap.co.kr/x).

<!-- snapshot:bench -->
| Host | p50 ms |
|---|---|
| A Processor | [0.47](../reports/cited/a/a.html) |
<!-- /snapshot -->
"""
KOREAN = """# 제목

낱말과 수치 3개, `code`다. [제목](#둘째), [파일](../../LICENSE).

```sh
run --it  # and say so
```

## 둘째

| 항목 | 값 |
|---|--:|
| 하나 `key` | 2,000(±1 %) |

- 첫째다.
- 둘째다. [다른 곳](OTHER.md#거기), [밖](https://pillsnap.co.kr/x).

<!-- snapshot:bench -->
| Host | p50 ms |
|---|---|
| A Processor | [0.47](../../reports/cited/a/a.html) |
<!-- /snapshot -->
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A document and its translation, each beside another one."""
    document, translation = tmp_path / "docs" / "ONE.md", tmp_path / "docs" / "ko" / "ONE.md"
    translation.parent.mkdir(parents=True)
    document.write_text(ENGLISH)
    translation.write_text(KOREAN)
    document.with_name("OTHER.md").write_text("# Other\n\n## There\n\n## There\n")
    translation.with_name("OTHER.md").write_text("# 다른 문서\n\n## 거기\n\n## 거기\n")
    return document, translation


def test_a_faithful_translation_differs_in_nothing(pair: tuple[Path, Path]) -> None:
    assert compare(*pair) == []


CHANGES = [  # what is changed, from, to, the line here, the line there, what is said
    ("a heading", "## 둘째\n", "둘째\n", 1, 9, "no section for heading of level 2"),
    ("its level", "## 둘째", "### 둘째", 9, 9, "heading of level 3 for heading of level 2"),
    ("a section", "- 첫째다.", "## 셋째\n\n- 첫째다.", 15, 9, "heading of level 2 for no section"),
    (
        "a paragraph",
        "## 둘째",
        "또 한마디.\n\n## 둘째",
        9,
        5,
        "paragraph (depth 0) for the section",
    ),
    ("an item", "- 둘째다", "- 하나 더.\n- 둘째다", 16, 16, "nothing for 'OTHER.md in the own"),
    ("a block of code", "run --it", "run --all", 6, 6, "'run --all  # and say so' for 'run --it"),
    ("its comment", "# and say so", "# 말한다", 6, 6, "'run --it  # 말한다' for"),
    ("its language", "```sh", "```bat", 5, 5, "'bat' for 'sh'"),
    ("code in a sentence", "`code`", "`kode`", 3, 3, "code 'kode' for 'code'"),
    ("a figure in a sentence", "수치 3개", "수치 4개", 3, 3, "figures '4' for '3'"),
    ("a figure in a cell", "2,000(", "2,001(", 13, 13, "figures '2,001' for '2,000'"),
    ("a sign in a cell", "±1 %", "1 %", 13, 13, "figures '1' for '±1'"),
    ("a figure more", "하나 `key`", "1개 `key`", 13, 13, "figures '1' for nothing"),
    ("code in a cell", "`key`", "`키`", 13, 13, "code '키' for 'key'"),
    (
        "a column",
        "| 항목 | 값 |\n|---|--:|",
        "| 항목 |\n|---|",
        13,
        11,
        "row of a table (depth 2) for cell",
    ),
    ("a row", "| 하나 `key` | 2,000(±1 %) |\n", "", 14, 13, "list (depth 0) for row of a table"),
    ("a link to a file", "../../LICENSE", "../LICENSE", 3, 3, "'LICENSE' for '../LICENSE'"),
    ("a link to a page", "snap.co.kr/x", "snap.co.kr/y", 16, 16, "snap.co.kr/y' for 'https://"),
    ("an anchor", "(#둘째)", "(#제목)", 3, 3, "own language heading 1' for 'ONE.md in the own"),
    ("an anchor that is none", "(#둘째)", "(#second)", 3, 3, "'ONE.md in the own language second'"),
    ("an anchor elsewhere", "#거기)", "#거기-1)", 16, 16, "own language heading 3' for"),
    (
        "the language",
        "(OTHER.md#거기)",
        "(../OTHER.md#there)",
        16,
        16,
        "'OTHER.md in the other lan",
    ),
    ("a snapshot", "A Processor", "프로세서", 21, 21, "'프로세서' for 'A Processor'"),
    ("its columns", "| Host |", "| 호스트 |", 19, 19, "'호스트' for 'Host'"),
    ("its figures", "[0.47]", "[0.48]", 21, 21, "'0.48' for '0.47'"),
    ("its links", "../../reports", "../reports", 21, 21, "'reports/cited/a/a.html' for '../rep"),
    ("its marker", "snapshot:bench", "snapshot:sweep", 18, 18, "snapshot:sweep"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_a_change_of_one_alone_is_found_with_both_places(
    pair: tuple[Path, Path], change: tuple[str, str, str, int, int, str]
) -> None:
    document, translation = pair
    _name, old, new, here, there, words = change
    assert old in KOREAN
    translation.write_text(KOREAN.replace(old, new, 1))
    first = compare(document, translation)[0]
    assert first.startswith(f"{translation}:{here}: ")
    assert first.endswith(f" at {document}:{there}")
    assert words in first


def test_links_in_another_order_are_found(pair: tuple[Path, Path]) -> None:
    document, translation = pair
    a, b = "[제목](#둘째)", "[파일](../../LICENSE)"
    translation.write_text(KOREAN.replace(f"{a}, {b}", f"{b}, {a}"))
    (found,) = compare(document, translation)
    assert found.startswith(f"{translation}:3: links in another order than 'ONE.md in the own")


def test_the_other_language_may_be_named_by_both(pair: tuple[Path, Path]) -> None:
    document, translation = pair
    document.write_text(ENGLISH + "\n[한국어](ko/ONE.md)\n")
    translation.write_text(KOREAN + "\n[English](../ONE.md)\n")
    assert compare(document, translation) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("run --it", "run --all"), ("3 figures", "4 figures"), ("(#second)", "(#title)")],
)
def test_a_change_of_the_english_one_alone_is_found_too(
    pair: tuple[Path, Path], old: str, new: str
) -> None:
    document, translation = pair
    document.write_text(ENGLISH.replace(old, new))
    (found,) = compare(document, translation)
    assert f" at {document}:" in found


@pytest.mark.parametrize(
    ("english", "korean", "words"),
    [
        ("First, of all.", "첫째다.", "ko/ONE.md:9: has not followed {}:9; let both"),
        ("First.", "무엇보다 첫째다.", "ko/ONE.md:9: went ahead of {}:9; let both"),
        ("First, of all.", "무엇보다 첫째다.", "ko/ONE.md:9: changed with {}:9; let both"),
    ],
)
def test_words_that_changed_since_they_were_noted_are_found(
    pair: tuple[Path, Path], english: str, korean: str, words: str
) -> None:
    document, translation = pair
    noted = note(document, translation)
    assert find_changed(document, translation, noted) == []
    document.write_text(ENGLISH.replace("First.", english))
    translation.write_text(KOREAN.replace("첫째다.", korean))
    assert compare(document, translation) == []
    (found,) = find_changed(document, translation, noted)
    assert words.format(document) in found
    assert find_changed(document, translation, note(document, translation)) == []


def test_a_new_section_must_be_noted_and_a_new_snapshot_need_not(pair: tuple[Path, Path]) -> None:
    document, translation = pair
    noted = note(document, translation)
    document.write_text(ENGLISH.replace("[0.47]", "[0.52]"))
    assert find_changed(document, translation, noted) == []
    document.write_text(f"{ENGLISH}\n## Third\n")
    translation.write_text(f"{KOREAN}\n## 셋째\n")
    assert "its sections are not those" in find_changed(document, translation, noted)[0]


def test_the_four_documents_of_operators_are_there_in_korean() -> None:
    assert tuple(sorted(path.name for path in (DOCS / "ko").iterdir())) == NAMES


@pytest.mark.parametrize("path", sorted((DOCS / "ko").glob("*.md")), ids=lambda path: path.name)
def test_a_korean_document_agrees_with_the_english_one(path: Path) -> None:
    differences = compare(DOCS / path.name, path)
    assert not differences, "\n".join(differences)
    changed = find_changed(DOCS / path.name, path, json.loads(NOTED.read_text())[path.name])
    assert not changed, "\n".join(changed)


@pytest.mark.parametrize("path", sorted((DOCS / "ko").glob("*.md")), ids=lambda path: path.name)
def test_no_sign_of_emphasis_is_left_in_the_text(path: Path) -> None:
    """No particle may follow **값(value)**, and GitHub strikes out what is between tildes."""
    for token in MARKDOWN.parse(path.read_text()):
        for child in token.children or []:
            if child.type == "text":
                assert not set("*~") & set(child.content), child.content
