"""A trial load: whatever the model does, it does it to a child."""

import os
from pathlib import Path

import numpy as np
import pytest

from opslib.core.sections import ReloadSection
from opslib.inference import trial
from opslib.inference.causes import ModelCheckError
from opslib.inference.trial import try_model
from tests.models import write_onnx

pytestmark = pytest.mark.usefixtures("plain_processes")


def write_child(folder: Path, body: str) -> Path:
    path = folder / "child.py"
    path.write_text(f"import os, signal, sys, time\nfrom pathlib import Path\n{body}\n")
    return path


def test_a_good_model_tells_what_it_is_and_answers(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", classes=5, size=8)
    images = np.random.default_rng(0).normal(size=(11, 3, 8, 8)).astype(np.float32)
    result = try_model(model, images=images)
    assert result.num_classes == 5
    assert result.dtype == "float32"
    assert result.inputs[0].shape == (None, 3, 8, 8)
    assert result.answered().shape == (11, 5)


def test_answers_are_those_of_an_ordinary_session(tmp_path: Path) -> None:
    from opslib.inference.engine import EngineRequest
    from opslib.inference.opening import open_engine

    model = write_onnx(tmp_path / "m.onnx", batch=4, size=8)
    images = np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype(np.float32)
    with open_engine(EngineRequest("onnx", model, batch_size=4)) as engine:
        expected = np.concatenate([engine.run(images[:4]), engine.run(images[[4, 5, 0, 1]])])[:6]
    np.testing.assert_allclose(try_model(model, images=images).answered(), expected, rtol=1e-5)


def test_weights_in_a_sidecar_are_found(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", sidecar=True)
    assert try_model(model).num_classes == 3
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelCheckError, match=r"m\.onnx\.data is missing") as caught:
        try_model(model)
    assert caught.value.stage == "load"


def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    data = bytearray(model.read_bytes())
    data[data.index(b"GlobalAveragePool")] ^= 0x20
    model.write_bytes(bytes(data))
    with pytest.raises(ModelCheckError, match="ONNX Runtime refuses it") as caught:
        try_model(model)
    assert caught.value.stage == "load"
    assert "\n" not in str(caught.value)


def test_an_abort_of_the_loader_does_not_touch_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "CHILD", write_child(tmp_path, "os.abort()"))
    with pytest.raises(ModelCheckError, match="ended the trial process by SIGABRT") as caught:
        try_model(write_onnx(tmp_path / "m.onnx"))
    assert caught.value.stage == "load"


def test_a_crash_after_loading_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "(Path(sys.argv[1]) / 'loaded').touch()\nos.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(trial, "CHILD", write_child(tmp_path, body))
    with pytest.raises(ModelCheckError, match=r"running it ended .* by SIGSEGV") as caught:
        try_model(write_onnx(tmp_path / "m.onnx"))
    assert caught.value.stage == "outputs"


def test_a_load_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ModelCheckError, match=r"took longer than 0\.01 s"):
        try_model(write_onnx(tmp_path / "m.onnx"), limits=ReloadSection(trial_timeout_s=0.01))


def test_a_load_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", classes=400_000)
    with pytest.raises(ModelCheckError, match="needs more than the 1 MiB allowed"):
        try_model(model, limits=ReloadSection(trial_memory_mb=1))


def test_the_child_is_nice_and_the_session_starts_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = (
        "\n    (folder / 'seen').write_text(f'{os.nice(0)} {len(os.listdir(\"/proc/self/task\"))}')"
    )
    mark = '    (folder / "loaded").touch()'
    source = trial.CHILD.read_text().replace(mark, mark + note.replace("folder", "Path(SEEN)"))
    source = f"SEEN = {str(tmp_path)!r}\n{source}"
    child = tmp_path / "child.py"
    child.write_text(source)
    monkeypatch.setattr(trial, "CHILD", child)
    try_model(write_onnx(tmp_path / "m.onnx"))
    nice, threads = (tmp_path / "seen").read_text().split()
    assert nice == "19"
    assert int(threads) <= 2  # its own, and one that ONNX Runtime starts when imported
    assert os.nice(0) < 19


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    try_model(write_onnx(tmp_path / "m.onnx"))
    with pytest.raises(ModelCheckError):
        try_model(write_onnx(tmp_path / "m.onnx"), limits=ReloadSection(trial_timeout_s=0.01))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_error_survives_pickling_with_its_stage() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ModelCheckError("golden", "m.onnx: differs")))
    assert (error.stage, str(error)) == ("golden", "m.onnx: differs")
    assert int(error.exit_code) == 2


def test_a_trial_whose_weights_are_cut_short_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGBUS)\n")
    monkeypatch.setattr("opslib.inference.trial.CHILD", child)
    with pytest.raises(ModelCheckError, match=r"SIGBUS \(a file that it had mapped became shorter"):
        try_model(write_onnx(tmp_path / "m.onnx"))
