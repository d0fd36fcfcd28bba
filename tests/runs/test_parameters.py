from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from opslib.core.errors import ParameterError
from opslib.runs.parameters import (
    check_parameters,
    read_assignments,
    read_parameter_file,
    read_parameters,
)

SOURCE = """\
count: int = 3  # 1..10 rounds
budget_s: float = 60  # 0.5.. seconds
sha: str = "nogit"  # the commit
mode: str = "both"  # onnx|torch|both: what is timed
batch: list[int] = [1, 2]  # 1..64 batch sizes
strict: bool = False  # refuse unreadable images
model: str | None = None  # the model; None: the latest
api_key: str | None = None  # env:NAME
"""


def specs(source: str = SOURCE) -> Any:
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    return read_parameters(new_notebook(cells=[cell]))


def check(**values: Any) -> dict[str, Any]:
    return check_parameters(values, specs())


def test_a_second_parameters_cell_is_refused_since_its_defaults_would_win() -> None:
    cells = [new_code_cell("n: int = 1", metadata={"tags": ["parameters"]}) for _ in range(2)]
    with pytest.raises(ParameterError, match="2 cells are tagged parameters; expected one"):
        read_parameters(new_notebook(cells=cells))


def test_the_annotated_cell_says_type_default_help_and_limits() -> None:
    found = specs()
    assert list(found)[:3] == ["count", "budget_s", "sha"]
    assert (found["count"].default, found["count"].low, found["count"].high) == (3, 1, 10)
    assert (found["budget_s"].low, found["budget_s"].high) == (0.5, None)
    assert found["mode"].choices == ("onnx", "torch", "both")
    assert found["batch"].type_text == "list[int]"
    assert found["model"].type_text == "str | None"
    assert found["sha"].help == "the commit"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sha", "0012345", "0012345"),
        ("sha", "12e4567", "12e4567"),
        ("sha", "null", "null"),
        ("count", "7", 7),
        ("budget_s", "5", 5.0),
        ("budget_s", "1e2", 100.0),
        ("batch", "1, 8,16", [1, 8, 16]),
        ("batch", "[1, 8]", [1, 8]),
        ("batch", (1, 8), [1, 8]),
        ("strict", "true", True),
        ("strict", "no", False),
        ("mode", "torch", "torch"),
        ("model", "null", None),
        ("model", "None", None),
        ("model", None, None),
        ("model", "a.onnx", "a.onnx"),
        ("budget_s", 5, 5.0),
    ],
)
def test_text_is_converted_as_the_notebook_declares(name: str, text: Any, value: Any) -> None:
    converted = check(**{name: text})[name]
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("count", "11", "in 1..10"),
        ("count", "0", "in 1..10"),
        ("count", "3.5", "a whole number"),
        ("count", "1e3", "a whole number"),
        ("count", True, "a whole number"),
        ("budget_s", "nan", "a number"),
        ("budget_s", "0.1", r"in 0\.5\.\."),
        ("budget_s", "inf", "a number"),
        ("mode", "tf", "one of onnx, torch, both"),
        ("batch", "1,x", "separated by commas"),
        ("batch", "128", "in 1..64"),
        ("batch", 3, "separated by commas"),
        ("strict", "maybe", "true or false"),
        ("sha", 12345, "text"),
        ("count", "null", "a whole number"),
    ],
)
def test_a_mistyped_or_impossible_value_is_refused(name: str, text: Any, words: str) -> None:
    with pytest.raises(ParameterError, match=f"parameter {name}: .*{words}"):
        check(**{name: text})


def test_an_unknown_parameter_is_refused_with_a_guess() -> None:
    with pytest.raises(ParameterError, match=r"'buget_s' is unknown; did you mean 'budget_s'"):
        check(buget_s=3)


def test_parameters_of_a_notebook_without_a_cell_are_refused() -> None:
    with pytest.raises(ParameterError, match="has: none"):
        check_parameters({"a": 1}, read_parameters(new_notebook()))


def test_a_secret_is_taken_by_reference_only_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="by reference") as refusal:
        check(api_key="0123456789abcdef")
    assert "0123456789abcdef" not in str(refusal.value)
    with pytest.raises(ParameterError, match="NOT_SET"):
        check(api_key="env:NOT_SET")
    (tmp_path / ".env").write_text("API_KEY=0123456789abcdef\n")
    monkeypatch.delenv("API_KEY", raising=False)
    assert check_parameters({"api_key": "env:API_KEY"}, specs(), tmp_path) == {
        "api_key": "env:API_KEY"
    }


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import os", "import os"),
        ("a: int = len('x')", "no literal"),
        ("a: dict = {}", "not known"),
        ("a: int =", "not Python"),
        ("a, b = 1, 2", "expected name: type = literal"),
    ],
)
def test_a_parameter_cell_holds_literals_only(source: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        specs(source)


def test_an_unannotated_literal_takes_its_values_type() -> None:
    found = specs("a = 1.5\nb = [1]\nc = None\n")
    assert [found[name].type_text for name in "abc"] == ["float", "list[int]", "str | None"]


def test_a_parameter_file_keeps_every_scalar_as_text(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("sha: 0012345\nbatch: [1, 8]\nstrict: yes\nmodel: null\n")
    assert check(**read_parameter_file(path)) == {
        "sha": "0012345",
        "batch": [1, 8],
        "strict": True,
        "model": None,
    }


def test_a_parameter_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ParameterError, match=r"p\.yaml"):
        read_parameter_file(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        read_parameter_file(tmp_path / "missing.yaml")


def test_assignments_split_at_the_first_equals_sign() -> None:
    assert read_assignments(["a=1=2", "b="]) == {"a": "1=2", "b": ""}
    with pytest.raises(ParameterError, match="expected key value or key=value"):
        read_assignments(["a"])
    with pytest.raises(ParameterError, match="given twice"):
        read_assignments(["a=1", "a=2"])


@given(st.text())
def test_a_text_parameter_keeps_any_text_exactly(text: str) -> None:
    if not text.startswith("env:"):
        assert check(sha=text) == {"sha": text}


@given(st.text(max_size=20))
def test_a_number_is_converted_or_refused_never_something_else(text: str) -> None:
    try:
        value = check(count=text)["count"]
    except ParameterError:
        return
    assert isinstance(value, int)
    assert 1 <= value <= 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "9" * 5000),
        ("count", 10**5000),
        ("budget_s", 10**5000),
        ("batch", "9" * 5000),
        ("batch", "[" * 50_000),
        ("batch", ""),
        ("batch", " , "),
        ("batch", []),
        ("sha", "\udcff\udcfe"),
    ],
    ids=lambda value: str(value)[:8] if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_no_notebook_could_use_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"parameter {name}: got"):
        check(**{name: value})


@pytest.mark.parametrize(
    "source",
    [
        "a: int = {[]: 1}",
        "a: int = " + "[" * 250 + "]" * 250,
        "a: int = " + "-" * 50_000 + "1",
        "a: int = " + "9" * 5000,
        "a: int = 1\0",
    ],
    ids=["unhashable", "brackets", "signs", "digits", "null"],
)
def test_a_parameter_cell_that_python_cannot_read_is_refused(source: str) -> None:
    with pytest.raises(ParameterError):
        specs(source)
