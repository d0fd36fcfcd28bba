"""Editing the configuration: one key changes, every comment stays."""

from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.config_edit import edit_yaml, plan_config_edit, set_keys
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
        (
            "  allow_spinning: true         # idle threads wait busily: fast, and others pay",
            "  allow_spinning: false        # idle threads wait busily: fast, and others pay",
        ),
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
    set_keys(path, {"onnx.providers": ["CPU"], "onnx.cuda.cudnn_conv_algo_search": "HEURISTIC"})
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


def test_a_link_stays_a_link_and_the_file_keeps_its_mode(tmp_path: Path) -> None:
    real = tmp_path / "real/config.yaml"
    real.parent.mkdir()
    real.write_text(TEXT)
    real.chmod(0o600)
    link = tmp_path / "config.yaml"
    link.symlink_to("real/config.yaml")
    set_keys(link, {"onnx.allow_spinning": False})
    assert link.readlink() == Path("real/config.yaml")
    assert "allow_spinning: false" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o600


def test_line_ends_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    before = b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()
    path.write_bytes(before)
    set_keys(path, {"onnx.allow_spinning": False})
    assert path.read_bytes() == before.replace(b"g: true", b"g: false")


def test_all_keys_change_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    plan = plan_config_edit(
        path, {"onnx.allow_spinning": False, "onnx.providers": ["CPU"]}, why="measured"
    )
    assert plan.lines()[1:] == [
        "  set onnx.allow_spinning: true -> false; "
        "onnx.providers: ['CUDA', 'CPU'] -> ['CPU']: measured"
    ]
    plan.execute()
    assert "allow_spinning: false" in path.read_text()
    assert "providers: [CPU]" in path.read_text()


def test_a_text_that_the_check_refuses_is_neither_planned_nor_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)

    def refuse(text: str) -> None:
        raise ConfigError("refused")

    changes = {"onnx.allow_spinning": False}
    with pytest.raises(ConfigError, match="refused"):
        plan_config_edit(path, changes, why="x", check=refuse)
    with pytest.raises(ConfigError, match="refused"):
        set_keys(path, changes, check=refuse)
    assert path.read_text() == TEXT


def test_a_plan_line_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    plan = plan_config_edit(path, {"onnx.providers": ["CPU\n  b: 1"]}, why="x")
    assert not any("\n" in line for line in plan.lines())


def test_a_word_that_would_be_read_back_as_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"onnx\.word: cannot be set to 'yes'"):
        edit_yaml(TEXT, {"onnx.word": "yes"})


def test_a_key_that_stands_twice_is_not_edited() -> None:
    with pytest.raises(ConfigError, match="onnx: stands twice, at line 9"):
        edit_yaml(f"{TEXT}onnx: {{}}\n", {"onnx.allow_spinning": False})
