"""Where a variable moves the experiment, all that the file names in it moves with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.ops.checklist.doctor import examine
from tests.models import write_onnx

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = """paths:
  exp_dir: old
  data_root: images
  report_dir: old/reports/notebooks
export: {out_dir: "{FOLDER}/old/export"}
models:
  detection: {contract: any, pin_file: old/.env}
  classification: {pin_file: serving/.env}
reload: {model_dirs: [old/more, shared]}
health: {log: old/../old/logs/watch.out}
rotate: {log: older/cloudflared.log}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(WRITTEN.replace("{FOLDER}", str(tmp_path)))
    return path


@pytest.mark.parametrize("name", ["PILLSNAP_EXP_DIR", "PILLSNAP_PATHS__EXP_DIR"])
def test_what_lies_in_the_experiment_moves_with_it_and_nothing_else(
    written: Path, name: str
) -> None:
    root, config = written.parent, load_config(written, {name: "new"})
    assert config.export_dir == root / "new/export"
    assert config.report_dir == root / "new/reports/notebooks"
    assert config.models["detection"].pin_file == root / "new/.env"
    assert config.models["classification"].pin_file == Path("serving/.env")
    assert config.reload.model_dirs == (root / "new/more", Path("shared"))
    assert config.health.log == root / "new/logs/watch.out"
    assert config.rotate.log == Path("older/cloudflared.log")
    assert config.data_root == root / "images"
    assert config.moved == (
        "export.out_dir",
        "health.log",
        "models.detection.pin_file",
        "paths.report_dir",
        "reload.model_dirs",
    )


def test_what_a_variable_names_itself_stays_where_it_says(written: Path) -> None:
    variables = {"PILLSNAP_EXP_DIR": "new", "PILLSNAP_EXPORT__OUT_DIR": "old/export"}
    config = load_config(written, variables)
    assert config.export_dir == written.parent / "old/export"
    assert "export.out_dir" not in config.moved


def test_without_a_variable_or_with_the_same_folder_nothing_moves(written: Path) -> None:
    assert load_config(written, {}).moved == ()
    assert load_config(written, {"PILLSNAP_EXP_DIR": "old"}).moved == ()
    assert load_config(written, {"PILLSNAP_EXP_DIR": "./old"}) == load_config(written, {})


def test_a_default_that_the_file_does_not_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("paths: {exp_dir: ., data_root: images}\n")
    config = load_config(path, {"PILLSNAP_EXP_DIR": "/new"})
    assert config.report_dir == tmp_path / "reports"
    assert config.moved == ("paths.data_root",)


def test_the_serving_repository_s_dotenv_moves_all_of_the_production_experiment(
    tmp_path: Path,
) -> None:
    shutil.copy(ROOT / "config.production.yaml", tmp_path)
    (tmp_path / ".env").write_text(
        "PILLSNAP_DATA_ROOT=/mnt/data/pillsnap_dataset\nPILLSNAP_EXP_DIR=/mnt/data/exp/exp01\n"
        "API_KEY=CHANGE_ME_STRONG_RANDOM_KEY_HERE\nLOG_LEVEL=info\nCUDA_VISIBLE_DEVICES=0\n"
    )
    config = load_config(tmp_path / "config.production.yaml", {})
    for folder in (config.export_dir, config.report_dir, config.records_dir, config.restore_dir):
        assert folder.is_relative_to("/mnt/data/exp/exp01")
    assert {"export.out_dir", "paths.report_dir"} <= set(config.moved)


def test_the_doctor_says_what_moved_and_finds_no_model_of_another_tree(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(written.parent / "old/export/model.onnx")
    monkeypatch.setenv("PILLSNAP_EXP_DIR", "new")
    monkeypatch.setenv("PILLSNAP_URL", "http://other:8000")
    (written.parent / "new").mkdir()
    found = list(examine(load_config(written)))
    said = [one.seen for one in found if one.area == "variables"]
    assert any("PILLSNAP_URL: a variable of the serving repository" in line for line in said)
    assert any("with it moved export.out_dir, " in line for line in said)
    assert {one.state for one in found if one.area == "model"} == {"problem"}  # of each kind


def test_the_doctor_notes_an_export_folder_outside_of_the_experiment(written: Path) -> None:
    write_onnx(written.parent / "old/export/model.onnx")
    variables = {"PILLSNAP_EXP_DIR": "new", "PILLSNAP_EXPORT__OUT_DIR": "old/export"}
    found = list(examine(load_config(written, variables)))
    said = [one.seen for one in found if one.area == "variables"]
    assert any(line.endswith("old/export, lies outside of paths.exp_dir") for line in said)
