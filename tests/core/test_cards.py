"""Evidence that was never there is none; evidence that cannot be read is never taken for none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opslib.core.cards import (
    REPORT_NAME,
    ModelCard,
    card_path,
    explain_report,
    find_gaps,
    read_card,
    read_export_report,
)
from opslib.core.config import load_config
from opslib.core.errors import InputError
from opslib.inference.find_model import find_card
from tests.damage import UNREADABLE
from tests.models import write_config, write_onnx

FIELDS = {
    "backbone": "net",
    "num_classes": 3,
    "onnx_path": "export/m.onnx",
    "exported_at_utc": "2026-11-01T00:00:00+00:00",
    "input_shape": ["N", 3, 16, 16],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with an intact card, whose export report names it, too."""
    path = write_onnx(tmp_path / "exp" / "export" / "m.onnx")
    ModelCard.model_validate(FIELDS).write(card_path(path))
    path.with_name(REPORT_NAME).write_text(json.dumps(FIELDS))
    return path


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_card_that_cannot_be_read_is_an_error_that_names_it(model: Path, kind: str) -> None:
    UNREADABLE[kind](card_path(model))
    config = load_config(write_config(model.parents[2]), {})
    for look in (lambda: read_card(model), lambda: find_card(config, model)):
        with pytest.raises(InputError, match=r"m.json: evidence that is there but cannot be read"):
            look()


def test_a_card_of_another_schema_is_damaged(model: Path) -> None:
    card_path(model).write_text(json.dumps({**FIELDS, "schema": "model-card/9"}))
    with pytest.raises(InputError, match="model-card/9"):
        read_card(model)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_so_is_an_export_report_but_only_where_it_is_needed(model: Path, kind: str) -> None:
    UNREADABLE[kind](model.with_name(REPORT_NAME))
    config = load_config(write_config(model.parents[2]), {})
    assert find_card(config, model) is not None
    card_path(model).unlink()
    with pytest.raises(InputError, match=rf"{REPORT_NAME}: evidence that is there but cannot"):
        find_card(config, model)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"team": "serving", "accuracy": 0.9},
        {**FIELDS, "schema": "serving-team/3", "num_classes": "three"},
        {**FIELDS, "onnx_path": "export/another.onnx"},
    ],
    ids=["empty", "other", "schema", "another_model"],
)
def test_a_foreign_report_and_one_of_another_model_are_none(
    model: Path, report: dict[str, object]
) -> None:
    card_path(model).unlink()
    model.with_name(REPORT_NAME).write_text(json.dumps(report))
    assert find_card(load_config(write_config(model.parents[2]), {}), model) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"postprocess": {"name": "softmax", "axis": 1}},
        {"opset": "18"},
        {"dynamic_axes": ["batch"]},
        {"providers": "CPUExecutionProvider"},
        {"compare": {"max_diff": 1e-6}, "params_million": "22 M"},
        {"git_sha": {"commit": "abc"}, "providers": {"CPU": True}, "backbone": 7},
        {"schema": "serving-team/3"},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_a_foreign_report_is_used_in_whatever_form_it_says_what_is_not_needed(
    model: Path, fields: dict[str, object]
) -> None:
    card_path(model).unlink()
    model.with_name(REPORT_NAME).write_text(json.dumps({**FIELDS, **fields}))
    card = find_card(load_config(write_config(model.parents[2]), {}), model)
    assert card is not None
    assert card.num_classes == 3
    assert "postprocess" not in fields or card.postprocess == fields["postprocess"]
    assert fields.get("providers") != "CPUExecutionProvider" or card.providers[0].startswith("CPU")
    assert explain_report(model.parent) is None


def test_a_foreign_report_needs_no_classes(model: Path) -> None:
    card_path(model).unlink()
    text = json.dumps({"onnx_path": "export/m.onnx", "input_shape": FIELDS["input_shape"]})
    model.with_name(REPORT_NAME).write_text(text)
    card = find_card(load_config(write_config(model.parents[2]), {}), model)
    assert card is not None
    assert card.num_classes is None


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"team": "serving"}, f"{REPORT_NAME} is not used: onnx_path: is missing"),
        ({**FIELDS, "num_classes": "three"}, "is not used: num_classes: "),
        ({**FIELDS, "files": ["m.onnx"]}, "is not used: files"),
    ],
)
def test_what_a_foreign_report_lacks_is_named(
    model: Path, report: dict[str, object], said: str
) -> None:
    model.with_name(REPORT_NAME).write_text(json.dumps(report))
    assert read_export_report(model.parent) is None
    assert said in str(explain_report(model.parent))


def test_the_card_of_a_classifier_is_written_as_before(model: Path) -> None:
    written = json.loads(card_path(model).read_text())
    assert list(written) == [
        "schema",
        "backbone",
        "num_classes",
        "ckpt_path",
        "onnx_path",
        "exported_at_utc",
        "git_sha",
        "input_shape",
        "opset",
        "dynamic_axes",
        "params_million",
        "providers",
        "postprocess",
        "compare",
        "files",
        "class_names",
        "golden",
    ]


def test_a_report_of_ours_that_lacks_a_field_is_damaged(model: Path) -> None:
    path = model.with_name(REPORT_NAME)
    path.write_text(json.dumps({"schema": "model-card/1", "backbone": "net"}))
    with pytest.raises(InputError, match="evidence that is there"):
        read_export_report(path.parent)


def test_what_is_not_proved_is_said_in_one_line(model: Path) -> None:
    assert "no card" in str(find_gaps(None))
    assert "no digests" in str(find_gaps(read_card(model)))
    assert "no golden images" in str(find_gaps(read_card(model)))
