"""What is the serving repository's own does not stop us: its variables, its `config.yaml`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.core.errors import ConfigError
from tests.models import write_config
from tests.running import run_python

THEIRS = """paths:
  exp_dir: /mnt/data/exp/exp01
  data_root: /mnt/data/pillsnap_dataset
  ckpt_dir: null
pipeline: {mode: single}
data: {num_classes: 5000}
detection: {model: yolov11m}
classification: {num_classes: 5000}
export: {opset: 17}
"""


@pytest.mark.parametrize("name", ["PILLSNAP_API_KEY", "PILLSNAP_URL", "PILLSNAP_API_URL"])
def test_a_variable_of_the_serving_repository_changes_nothing(tmp_path: Path, name: str) -> None:
    path = write_config(tmp_path)
    assert load_config(path, {name: "x"}) == load_config(path, {})
    (tmp_path / ".env").write_text(f"{name}=x\n")
    assert load_config(path, {}).exp_dir == tmp_path / "exp"


@pytest.mark.parametrize(
    "name", ["PILLSNAP_BENCH__BUGET_S", "PILLSNAP_EXPDIR", "PILLSNAP_APIKEY", "PILLSNAP_URLS"]
)
def test_a_misspelt_variable_of_ours_is_refused_still(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.* unknown key"):
        load_config(write_config(tmp_path), {name: "1"})


@pytest.mark.parametrize("command", ["maintain", "release"])
def test_a_command_names_them_once_and_shows_no_value(tmp_path: Path, command: str) -> None:
    (tmp_path / "exp").mkdir()
    words = {"maintain": ["maintain", "--dry-run"], "release": ["release", "list"]}[command]
    variables = {"PILLSNAP_API_KEY": "s3cret-of-theirs", "PILLSNAP_URL": "http://other:8000"}
    answer = run_python(
        [sys.executable, "-m", "opslib.cli", *words, "--config", write_config(tmp_path)],
        env={**os.environ, **variables},
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("PILLSNAP_API_KEY, PILLSNAP_URL: variables of the serving") == 1
    assert "API_KEY in .env and client.url is" in answer.stderr
    assert "s3cret" not in answer.stdout + answer.stderr


def test_a_foreign_configuration_is_recognized_with_its_path_and_ours_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PILLSNAP_CONFIG", raising=False)
    (tmp_path / "config.yaml").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(environment={})
    assert str(caught.value) == (
        f"{tmp_path}/config.yaml: seems to be another program's configuration (pipeline, data, "
        "detection and 1 more: no section of ours); name ours with --config or PILLSNAP_CONFIG"
    )


def test_any_other_program_s_configuration_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("title: site\nbaseURL: /\n")
    with pytest.raises(ConfigError, match=r"another program's configuration \(title, baseURL: no"):
        load_config(path, {})


def test_one_wrong_section_of_ours_is_told_as_such_with_the_file_s_path(tmp_path: Path) -> None:
    path = write_config(tmp_path, "serving: {port: 1}\n")
    with pytest.raises(ConfigError, match=f"^{path}: serving: unknown key; did you mean 'service'"):
        load_config(path, {})
