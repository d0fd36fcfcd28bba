"""Evidence that was never there is none; evidence that cannot be read is never taken for none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opslib.core.cards import (
    REPORT_NAME,
    ModelCard,
    card_path,
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
        {**FIELDS, "postprocess": {"name": "softmax", "axis": 1}},
        {**FIELDS, "schema": "serving-team/3", "num_classes": "three"},
        {**FIELDS, "onnx_path": "export/another.onnx"},
    ],
    ids=["empty", "other", "postprocess", "schema", "another_model"],
)
def test_a_foreign_report_and_one_of_another_model_are_none(
    model: Path, report: dict[str, object]
) -> None:
    card_path(model).unlink()
    model.with_name(REPORT_NAME).write_text(json.dumps(report))
    assert find_card(load_config(write_config(model.parents[2]), {}), model) is None


def test_a_report_of_ours_that_lacks_a_field_is_damaged(model: Path) -> None:
    path = model.with_name(REPORT_NAME)
    path.write_text(json.dumps({"schema": "model-card/1", "backbone": "net"}))
    with pytest.raises(InputError, match="evidence that is there"):
        read_export_report(path.parent)


def test_what_is_not_proved_is_said_in_one_line(model: Path) -> None:
    assert "no card" in str(find_gaps(None))
    assert "no digests" in str(find_gaps(read_card(model)))
    assert "no golden images" in str(find_gaps(read_card(model)))
