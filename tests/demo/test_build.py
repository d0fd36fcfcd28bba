from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from opslib.core.cards import ModelCard, check_files, read_card
from opslib.core.config import load_config
from opslib.core.errors import BusyError, ConfigError, GateFailedError, StorageError
from opslib.core.files import hide_name, sha256_tree
from opslib.core.models import find_model_files
from opslib.core.records import read_json
from opslib.demo import export
from opslib.demo.build import FOLDERS, ValidationMetrics, build_demo
from opslib.demo.network import build_network
from opslib.demo.place import MARKER, DemoMarker, read_marker
from opslib.inference.postprocess import softmax
from opslib.inference.preprocess import preprocess
from opslib.ops.release.gives_away import find_tellings
from opslib.serving.leases import LEASE_FOLDER, Lease

from .conftest import TINY, make_config


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fake_build(config, size, asides, progress):
    """A build that takes no time: one file in each folder."""
    for new in asides.values():
        (new / "made.txt").write_text("new")
    facts = {"classes": 1, "images": 1, "val_top1": 1.0, "previous_val_top1": 1.0}
    facts |= {"model": "b.onnx", "previous_model": "a.onnx", "duration_s": 0.1}
    return DemoMarker(built_at_utc="2026-01-01T00:00:00+00:00", facts=facts)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("opslib.demo.build._build", fake_build)


def test_a_build_makes_the_whole_experiment(tiny):
    config, summary = tiny
    assert all((config.exp_dir / name).is_dir() for name in FOLDERS)
    assert (config.exp_dir / "checkpoints" / "best.pt").is_file()
    assert (config.export_dir / "latest.onnx").resolve().name == summary.model
    assert (config.export_dir / summary.previous_model).is_file()
    assert config.is_demo
    assert summary.built
    assert summary.images == 44
    assert not [name for name in tree(config.root) if "demo-" in name]


def test_the_checkpoint_loads_without_running_code_and_rebuilds_the_network(tiny):
    config, _ = tiny
    kept = torch.load(config.exp_dir / "checkpoints" / "best.pt", weights_only=True)
    assert kept["factory"] == "opslib.demo.network:build_network"
    assert kept["class_names"] == sorted(kind.name for kind in TINY.kinds)
    assert {"git_sha", "epoch", "metrics", "img_size", "num_classes"} <= kept.keys()
    build_network(kept["num_classes"]).load_state_dict(kept["state_dict"])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_exported_models_answer_like_their_checkpoints_at_any_batch(tiny, batch):
    config, summary = tiny
    inputs = np.random.default_rng(0).standard_normal((batch, 3, 48, 48)).astype(np.float32)
    for model in (summary.model, summary.previous_model):
        card = read_card(config.export_dir / model)
        kept = torch.load(config.exp_dir / card.ckpt_path, weights_only=True)
        net = build_network(kept["num_classes"])
        net.load_state_dict(kept["state_dict"])
        session = onnxruntime.InferenceSession(
            str(config.export_dir / model), providers=["CPUExecutionProvider"]
        )
        (given,), (answer,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.shape) == ("input", ["batch", 3, 48, 48])
        assert (answer.name, answer.shape) == ("logits", ["batch", 2])
        logits = session.run(["logits"], {"input": inputs})[0]
        with torch.inference_mode():
            expected = net.eval()(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_card_says_which_images_its_model_was_trained_on(tiny):
    config, summary = tiny
    learned = sha256_tree(list((config.data_root / "train").rglob("*.jpg")))
    for model in (summary.model, summary.previous_model):
        assert read_card(config.export_dir / model).train_data_sha256 == learned


def test_only_the_older_model_keeps_its_weights_in_a_sidecar(tiny):
    config, summary = tiny
    older = find_model_files(config.export_dir / summary.previous_model)
    assert [path.name for path in older.sidecars] == [f"{summary.previous_model}.data"]
    assert find_model_files(config.export_dir / summary.model).sidecars == ()
    opsets = onnx.load(older.path).opset_import
    assert [entry.version for entry in opsets if not entry.domain] == [export.OPSET]


def test_the_exported_models_give_nothing_away_of_where_they_were_made(tiny):
    config, summary = tiny
    for name in (summary.model, summary.previous_model):
        with (config.export_dir / name).open("rb") as file:
            assert find_tellings(file, name) == ()
        nodes = onnx.load(config.export_dir / name, load_external_data=False).graph.node
        assert not [node.name for node in nodes if node.metadata_props or node.doc_string]


def test_each_model_has_a_card_that_fits_its_files_and_the_newest_is_the_report(tiny):
    config, summary = tiny
    for model in (summary.model, summary.previous_model):
        card = read_card(config.export_dir / model)
        check_files(find_model_files(config.export_dir / model), card)
        assert card.compare.sample_count == 8
        assert card.compare.failed is False
        assert card.compare.top1_match_rate == 1.0
    report = ModelCard.read(config.export_dir / "export_report.json")
    assert report == read_card(config.export_dir / "latest.onnx")


def test_the_golden_answers_are_what_the_model_says(tiny):
    config, summary = tiny
    card = read_card(config.export_dir / summary.model)
    paths = [str(config.export_dir / answer.image) for answer in card.golden]
    said = softmax(export.answer_onnx(config.export_dir / summary.model, preprocess(paths, 48)))
    np.testing.assert_allclose(said, [answer.probabilities for answer in card.golden], atol=1e-5)
    assert len(paths) == TINY.golden


def test_the_metrics_name_their_checkpoint_and_count_every_class(tiny):
    config, summary = tiny
    metrics = ValidationMetrics.read(config.exp_dir / "reports" / "metrics.json")
    assert metrics.checkpoint == "checkpoints/best.pt"
    assert metrics.val_top1 == summary.val_top1
    assert {name: score.count for name, score in metrics.per_class.items()} == {
        kind.name: TINY.val_per_class for kind in TINY.kinds
    }
    mean = np.mean([score.top1 for score in metrics.per_class.values()])
    assert metrics.val_top1 == pytest.approx(mean)
    assert read_json(config.exp_dir / "reports" / "metrics.json")["schema"]


def test_building_twice_changes_nothing_and_says_so(tiny):
    config, summary = tiny
    before = [(name, (config.root / name).lstat().st_mtime_ns) for name in tree(config.root)]
    console = Console(file=io.StringIO(), width=200)
    again = build_demo(config, size=TINY, console=console)
    assert not again.built
    assert again.model == summary.model
    assert "already there" in console.file.getvalue()
    assert before == [
        (name, (config.root / name).lstat().st_mtime_ns) for name in tree(config.root)
    ]


def test_a_second_build_does_not_even_load_torch(tiny):
    config, _ = tiny
    code = (
        "import sys; from opslib.core.config import load_config\n"
        "from opslib.demo.build import build_demo\n"
        f"build_demo(load_config({str(config.source)!r}, environment={{}}))\n"
        "print([name for name in ('torch', 'numpy', 'onnxruntime') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["demo/exp01", "demo/images"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_someone_else_is_refused_and_left_alone(tmp_path, folder, force, quick):
    config = make_config(tmp_path)
    theirs = tmp_path / folder / "export" / "mine.onnx"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"export/mine\.onnx, which the demo did not make"):
        build_demo(config, size=TINY, force=force)
    assert tree(tmp_path) == before
    assert theirs.read_text() == "precious"


def test_empty_folders_that_are_already_there_are_used(tmp_path, quick):
    config = make_config(tmp_path)
    (config.exp_dir / "logs").mkdir(parents=True)
    assert build_demo(config).built
    assert read_marker(config.exp_dir).files == ("made.txt",)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GateFailedError])
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, error):
    config = make_config(tmp_path)
    before = tree(tmp_path / "demo") if (tmp_path / "demo").exists() else []

    def stop(*_args, **_kwargs):
        raise error("stop")

    monkeypatch.setattr("opslib.demo.training.train", stop)
    with pytest.raises(error):
        build_demo(config, size=TINY)
    assert tree(tmp_path / "demo") == before


def test_an_interrupted_rebuild_keeps_the_demo_that_was_there(tmp_path, monkeypatch, quick):
    config = make_config(tmp_path)
    build_demo(config)
    before = tree(tmp_path)

    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("opslib.demo.build._build", stop)
    with pytest.raises(KeyboardInterrupt):
        build_demo(config, force=True)
    assert tree(tmp_path) == before


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path, quick):
    config = make_config(tmp_path)
    stale = hide_name(config.exp_dir)
    stale.mkdir(parents=True)
    (stale / ".demo-aside").touch()
    theirs = config.exp_dir.with_name(".exp01.demo-theirs")
    theirs.mkdir()
    (theirs / ".demo-aside").touch()
    build_demo(config)
    assert not stale.exists()
    assert theirs.exists()


def test_a_forced_rebuild_keeps_reports_and_releases_of_others(tmp_path, quick):
    config = make_config(tmp_path)
    build_demo(config)
    (config.exp_dir / "made.txt").write_text("old")
    kept = config.exp_dir / "releases" / "release.tar.gz"
    kept.parent.mkdir()
    kept.write_text("kept")
    assert build_demo(config, force=True).built
    assert kept.read_text() == "kept"
    assert (config.exp_dir / "made.txt").read_text() == "new"


def test_missing_images_are_made_again(tmp_path, quick):
    config = make_config(tmp_path)
    build_demo(config)
    (config.data_root / "made.txt").unlink()
    (config.data_root / MARKER).unlink()
    config.data_root.rmdir()
    assert build_demo(config).built
    assert (config.data_root / "made.txt").is_file()


def test_exports_configured_elsewhere_are_built_there(tmp_path, quick):
    make_config(tmp_path)
    source = tmp_path / "config.yaml"
    source.write_text(source.read_text() + "export:\n  out_dir: elsewhere\n")
    config = load_config(source, environment={})
    build_demo(config)
    assert read_marker(tmp_path / "elsewhere") is not None


def test_images_inside_the_experiment_are_refused(tmp_path):
    source = tmp_path / "config.yaml"
    source.write_text("paths:\n  exp_dir: demo\n  data_root: demo/images\n")
    with pytest.raises(ConfigError, match="separate folders"):
        build_demo(load_config(source, environment={}))


def test_a_model_that_differs_from_its_network_is_not_delivered(tiny):
    config, _ = tiny
    right = np.eye(4, dtype=np.float32)
    compare = export.compare_answers(right, right[::-1], config)
    assert compare.failed
    assert compare.top1_mismatch_count == 4
    assert "mean squared error" in compare.failure_reason


def test_without_a_terminal_progress_is_plain_lines(tiny_build):
    assert "epoch 2/2" in tiny_build.said
    assert "demo experiment built in" in tiny_build.said
    assert "\x1b" not in tiny_build.said
    assert "torch.onnx" not in tiny_build.said


def test_on_a_terminal_progress_is_bars(tmp_path, monkeypatch):
    def build(config, size, asides, progress):
        progress.move("images", 3, 6, "half way")
        return fake_build(config, size, asides, progress)

    monkeypatch.setattr("opslib.demo.build._build", build)
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    build_demo(make_config(tmp_path), console=console)
    assert "half way" in console.file.getvalue()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_forced_rebuild_leaves_models_alone_that_a_service_uses(tmp_path, quick, stopped):
    config = make_config(tmp_path)
    build_demo(config)
    lease = Lease(
        host="gpu2",
        address="0.0.0.0",
        port=8000,
        pid=1,
        exp_dir=tmp_path / "other",
        env_file=tmp_path / ".env",
        root=tmp_path,
        models={"a.onnx": "served now"},
        stopped=stopped,
    )
    path = config.export_dir / LEASE_FOLDER / lease.file_name
    path.parent.mkdir(parents=True)
    lease.write(path)
    before = tree(tmp_path)
    if stopped:
        assert build_demo(config, force=True).built
    else:
        with pytest.raises(BusyError, match=f"the demo is in use, as {path} says"):
            build_demo(config, force=True)
    assert tree(tmp_path) == before


def test_a_forced_rebuild_stops_where_a_service_does_not_say_what_it_serves(tmp_path, quick):
    config = make_config(tmp_path)
    build_demo(config)
    (config.export_dir / LEASE_FOLDER).mkdir(parents=True)
    (config.export_dir / LEASE_FOLDER / "x.json").write_text("{")
    with pytest.raises(StorageError, match="it is not known whether the demo is in use"):
        build_demo(config, force=True)
