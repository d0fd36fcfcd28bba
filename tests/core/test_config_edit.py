"""Editing the configuration: one key changes, every comment stays."""

from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.config_edit import edit_yaml, plan_config_edit, set_key
from opslib.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
# heading
paths:
  exp_dir: demo      # where

onnx:                # how
  providers: [CUDA, CPU]   # in order
  allow_spinning: true
  img_size: null     # nothing
"""


def test_only_the_named_lines_change() -> None:
    before = (ROOT / "config.yaml").read_text()
    after = edit_yaml(before, {"onnx.allow_spinning": False, "onnx.intra_op_num_threads": 2})
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert changed == [
        (
            "  intra_op_num_threads: 0      # 0: as many as this process may use",
            "  intra_op_num_threads: 2      # 0: as many as this process may use",
        ),
        ("  allow_spinning: true", "  allow_spinning: false"),
    ]


def test_comments_order_and_nulls_stay() -> None:
    after = edit_yaml(TEXT, {"onnx.providers": ["CPU"], "onnx.cuda.prefer_nhwc": 1})
    for kept in ("# heading", "# where", "# how", "# in order", "img_size: null     # nothing"):
        assert kept in after
    assert "providers: [CPU]" in after
    assert "  cuda:\n    prefer_nhwc: 1\n" in after


def test_a_section_that_is_missing_is_made() -> None:
    assert edit_yaml("paths: {exp_dir: x}\n", {"onnx.allow_spinning": True}).endswith(
        "onnx:\n  allow_spinning: true\n"
    )


def test_the_plan_shows_old_and_new_and_leaves_equals_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    plan = plan_config_edit(
        path, {"onnx.allow_spinning": False, "onnx.providers": ["CUDA", "CPU"]}, why="measured"
    )
    assert plan.lines()[1:] == ["  set onnx.allow_spinning: true -> false: measured"]
    assert path.read_text() == TEXT
    plan.execute()
    assert "allow_spinning: false" in path.read_text()
    assert plan_config_edit(path, {"onnx.allow_spinning": False}, why="x").actions == ()


def test_the_edited_file_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text((ROOT / "config.yaml").read_text())
    set_key(path, "onnx.providers", ["CPU"])
    set_key(path, "onnx.cuda.cudnn_conv_algo_search", "HEURISTIC")
    section = load_config(path, {}).onnx
    assert section.providers == ("CPU",)
    assert section.cuda["cudnn_conv_algo_search"] == "HEURISTIC"


@pytest.mark.parametrize("text", ["- a\n", "x: [1\n", ""])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        edit_yaml(text, {"onnx.allow_spinning": False})


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="allow_spinning is not a section"):
        edit_yaml(TEXT, {"onnx.allow_spinning.deep": 1})


def test_a_long_line_is_not_folded() -> None:
    long = f"note: {'word ' * 60}end   # kept\n"
    assert edit_yaml(f"onnx: {{}}\n{long}", {"onnx.allow_spinning": True}).endswith(long)
