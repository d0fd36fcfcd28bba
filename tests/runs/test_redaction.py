import json
from html import escape
from pathlib import Path
from urllib.parse import quote

import pytest

from opslib.core.secrets import MASK
from opslib.runs.redaction import Redactor

SECRET = 'p"q<r>\\s&é-0123456789'


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        escape(SECRET),
        repr(SECRET),
        quote(SECRET, safe=""),
    ],
)
def test_a_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    redactor = Redactor(frozenset({SECRET}))
    cleaned = redactor.clean_text(f"before {spelled} after", "a.html")
    assert MASK in cleaned
    assert "0123456789" not in cleaned
    assert redactor.found_in == ["a.html"]


def test_texts_keys_and_numbers_of_json_are_masked() -> None:
    redactor = Redactor(frozenset({"1234567890", "abcdefgh"}))
    value = {"abcdefgh": [1234567890, 1.5, None, "x abcdefgh"], "n": True}
    assert redactor.clean_json(value, "run.json") == {
        MASK: [MASK, 1.5, None, f"x {MASK}"],
        "n": True,
    }


def test_what_holds_no_secret_stays_as_it_is(tmp_path: Path) -> None:
    redactor = Redactor(frozenset({"abcdefgh"}))
    path = tmp_path / "kernel.log"
    path.write_bytes(b"abc\xff")
    redactor.clean_file(path)
    assert path.read_bytes() == b"abc\xff"
    assert redactor.found_in == []


def test_a_file_is_masked_in_place(tmp_path: Path) -> None:
    redactor = Redactor(frozenset({"abcdefgh"}))
    path = tmp_path / "kernel.log"
    path.write_text("key=abcdefgh\n")
    redactor.clean_file(path)
    assert path.read_text() == f"key={MASK}\n"
    assert redactor.found_in == ["kernel.log"]
