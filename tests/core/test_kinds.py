"""Kinds that could be taken for one another are refused before anything is asked or switched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.errors import ConfigError, ParameterError
from opslib.core.kinds import find_kind, list_kinds, pick_kind_of
from tests.models import write_config


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("request_field", "detection_path", "same request_field"),
        ("path_field", "detection_model_path", "same path_field"),
        ("digest_field", "detection_model_sha256", "same digest_field"),
        ("link", "latest_detection.onnx", "same link"),
        ("pin", "detection_model_path", "same pin"),
        ("pattern", "detection-*.onnx", "would be a"),
        ("pattern", "'*.onnx'", "would be a classification model, too"),
        ("pin", "API_KEY", "expected a variable that pins a model"),
        ("pin", "LOG_LEVEL", "expected a variable that pins a model"),
    ],
)
def test_what_belongs_to_another_kind_is_refused_by_name(
    tmp_path: Path, key: str, value: str, said: str
) -> None:
    kinds = f"models:\n  detection: {{contract: any}}\n  classification: {{{key}: {value}}}\n"
    with pytest.raises(ConfigError, match=said):
        load_config(write_config(tmp_path, kinds), {})


def test_a_file_that_fits_two_kinds_is_of_none(tmp_path: Path) -> None:
    kinds = "models:\n  a: {contract: any, pattern: 'det*.onnx'}\n  b: {pattern: '*_v?.onnx'}\n"
    config = load_config(write_config(tmp_path, kinds), {})
    assert find_kind(config, tmp_path / "det_v1.onnx") is None
    assert not any(kind.has("det_v1.onnx") for kind in list_kinds(config))


@pytest.mark.parametrize("folder", [False, True])
def test_a_named_file_of_pins_that_is_none_is_not_taken_for_nothing_pinned(
    tmp_path: Path, folder: bool
) -> None:
    if folder:
        (tmp_path / "theirs").mkdir()
    kinds = "models:\n  a: {contract: any, pin_file: theirs}\n  b: {}\n"
    kind = list_kinds(load_config(write_config(tmp_path, kinds), {}))[0]
    with pytest.raises(ConfigError, match="theirs"):
        kind.pins()


def test_a_variable_makes_no_kind_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = write_config(tmp_path, "models:\n  a: {contract: any}\n  b: {}\n")
    assert load_config(path, {"PILLSNAP_MODELS__A__KEEP": "3"}).models["a"].keep == 3
    with pytest.raises(ConfigError, match=r"PILLSNAP_MODELS__AA__KEEP: no such kind.*a, b"):
        load_config(path, {"PILLSNAP_MODELS__AA__KEEP": "3"})


def test_a_pin_stands_in_the_named_file_whatever_other_env_file_is_given(tmp_path: Path) -> None:
    kinds = "models:\n  a: {contract: any, pin_file: theirs/.env}\n  b: {}\n"
    theirs, ours = list_kinds(load_config(write_config(tmp_path, kinds), {}))
    other = tmp_path / "other.env"
    assert theirs.pin_source(other) == tmp_path / "theirs" / ".env"
    assert ours.pin_source(other) == other
    assert ours.pin_source() == tmp_path / ".env"


def test_a_path_of_no_kind_is_named_with_what_the_kinds_look_like(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "models:\n  a: {contract: any}\n  b: {}\n"), {})
    with pytest.raises(ParameterError, match=r"/x\.onnx: of no kind.*a \(a-\*\.onnx\)"):
        pick_kind_of(config, tmp_path / "x.onnx", None)


def test_a_folder_of_that_name_has_no_variables_and_a_pipe_is_not_waited_for(
    tmp_path: Path,
) -> None:
    path = write_config(tmp_path)
    (tmp_path / ".env").mkdir()
    assert load_config(path).root == tmp_path
    (tmp_path / ".env").rmdir()
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ConfigError, match=r"\.env: is no regular file"):
        load_config(path)
