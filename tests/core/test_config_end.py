"""A configuration that was cut off is refused; one that stands whole is read as ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.config import load_config, parse_config
from opslib.core.config_edit import edit_yaml, plan_config_edit, set_keys
from opslib.core.config_end import END
from opslib.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("config.yaml", "config.production.yaml")


@pytest.mark.parametrize("name", SHIPPED)
def test_cut_off_at_any_byte_a_shipped_file_is_refused_or_means_the_same(
    name: str,
) -> None:
    text, path = (ROOT / name).read_text(), Path("/c/config.yaml")
    assert text.isascii()
    whole = parse_config(text, path, {})
    taken = []
    for size in range(len(text)):
        try:
            found = parse_config(text[:size], path, {})
        except ConfigError as error:
            assert path.name in str(error)
        else:
            assert found == whole
            taken.append(size)
    assert taken == [len(text) - 1]  # without the last line's end


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_of_an_earlier_build_which_promises_no_end_is_read(name: str) -> None:
    text = (ROOT / name).read_text()
    earlier = "".join(text.splitlines(keepends=True)[1:-1])
    path = Path("/c/config.yaml")
    assert parse_config(earlier, path, {}) == parse_config(text, path, {})


OWN = "paths:\n  exp_dir: exp\n  data_root: images\nmaintenance:\n  keep_onnx: 50\n  log_days: 14\n"


def test_a_file_without_the_promise_is_not_taken_where_it_was_cut_within_a_line() -> None:
    path = Path("/c/config.yaml")
    ends = {at + 1 for at, sign in enumerate(OWN) if sign == "\n"}
    taken = set()
    for size in range(len(OWN) + 1):
        try:
            parse_config(OWN[:size], path, {})
        except ConfigError:
            continue
        taken.add(size)
    assert taken <= ends
    with pytest.raises(ConfigError, match=r"no line end: was it cut off\? .* `echo >> "):
        parse_config(OWN[:-2], path, {})


@pytest.mark.parametrize("ending", ["\n", "\r\n", "", "\n\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(ending: str, start: str) -> None:
    lines = (ROOT / "config.production.yaml").read_text().splitlines()
    text = start + ("\r\n" if ending == "\r\n" else "\n").join(lines) + ending
    parse_config(text, Path("/c/config.yaml"), {})


def test_what_stands_below_the_last_line_is_named() -> None:
    text = (ROOT / "config.yaml").read_text()
    line = len(text.splitlines()) + 1
    with pytest.raises(ConfigError, match=f"line {line} stands below `{END}`"):
        parse_config(f"{text}rotate:\n  keep: 3\n", Path("/c/config.yaml"), {})


def test_an_edit_leaves_the_last_line_the_last_and_none_mends_a_file_that_was_cut(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    text = (ROOT / "config.production.yaml").read_text()
    path.write_text(text)
    set_keys(path, {"checklist.key_age_days": 60, "rotate.keep": 3})
    edited = path.read_text()
    assert edited.endswith(f"\n{END}\n")
    assert edited.count(END) == text.count(END)
    assert load_config(path, {}).checklist.key_age_days == 60
    assert edit_yaml(edited, {"rotate.keep": 3}) == edited
    cut = edited[:-30]
    path.write_text(cut)
    with pytest.raises(ConfigError, match="cut off"):
        plan_config_edit(path, {"rotate.keep": 4}, why="test")
    with pytest.raises(ConfigError, match="cut off"):
        set_keys(path, {"rotate.keep": 4})
    assert path.read_text() == cut
