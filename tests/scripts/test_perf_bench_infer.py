"""The benchmark's door, run as a person runs it: one line and exit code 2 for each wrong input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models import write_config, write_images, write_onnx
from tests.running import run_python

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/perf_bench_infer.py"


def run(folder: Path, *arguments: str, **limits: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--config", str(folder / "config.yaml"), *arguments]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if "fsize" not in limits:
        return run_python(command, timeout=120, env=env)
    command = ["prlimit", f"--fsize={limits['fsize']}", *command]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=env
    )


MEASURED = {
    0: "pass",
    4: "inconclusive",
}  # a host that others use may be too restless for the first


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    write_images(tmp_path / "images/val/a", 4)
    write_onnx(tmp_path / "exp/export/m.onnx")
    extra = "bench: {target_half_width_pct: 1.0e+30, engine: onnx, batch: [1], budget_s: 3}\n"
    write_config(tmp_path, extra + "onnx: {providers: [CPU]}\n")
    return tmp_path


def records(folder: Path) -> list[Path]:
    return sorted(folder.glob("exp/reports/*"))


def test_a_benchmark_prints_its_table_and_keeps_its_record(experiment: Path) -> None:
    answer = run(experiment)
    assert answer.returncode in MEASURED, answer.stderr
    assert "img/s" in answer.stdout
    assert f"{MEASURED[answer.returncode]}: " in answer.stdout
    kept = records(experiment)
    assert len(kept) == 1
    assert kept[0].name.startswith("bench_")
    record = json.loads(kept[0].read_text())
    row = record["rows"][0]
    for key in ("engine", "provider", "batch_size", "threads", "boundary", "status", "raw_ms"):
        assert key in row
    assert set(row["latency_ms"]) == {"p50", "p90", "p99", "ci95", "n"}
    assert row["throughput_img_s"] > 0


def test_the_record_goes_where_it_is_told(experiment: Path) -> None:
    assert run(experiment, "--json", str(experiment / "here.json")).returncode in MEASURED
    assert json.loads((experiment / "here.json").read_text())["schema"] == "bench/1"
    assert records(experiment) == []


def test_cuda_alone_without_a_card_ends_with_2_and_says_why(experiment: Path) -> None:
    answer = run(experiment, "--providers", "CUDA")
    assert answer.returncode == 2
    assert "unavailable" in answer.stdout
    assert "CUDA cannot start" in answer.stderr


@pytest.mark.alone
def test_an_unreadable_image_is_counted_or_refused(experiment: Path) -> None:
    image = experiment / "images/val/a/0.jpg"
    image.write_bytes(image.read_bytes()[:60])
    answer = run(experiment)
    assert answer.returncode == 9
    assert "skipped" in answer.stdout
    assert "0.jpg" in answer.stdout
    refused = run(experiment, "--strict")
    assert refused.returncode == 2
    assert "0.jpg" in refused.stderr


def empty_model(folder: Path) -> None:
    (folder / "exp/export/m.onnx").write_bytes(b"")


def text_model(folder: Path) -> None:
    (folder / "exp/export/m.onnx").write_text("I am no model\n")


def no_model(folder: Path) -> None:
    (folder / "exp/export/m.onnx").unlink()


def half_model(folder: Path) -> None:
    path = folder / "exp/export/m.onnx"
    path.write_bytes(path.read_bytes()[:-30])


def no_folder(folder: Path) -> None:
    (folder / "exp/reports").touch()


def broken_config(folder: Path) -> None:
    (folder / "config.yaml").write_text("paths: {exp_dir: [\n")


def no_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def nothing(_folder: Path) -> None:
    return


BAD: list[tuple[Callable[[Path], None], list[str], str]] = [
    (no_images, [], "no image matches"),
    (nothing, ["--inputs", "/nowhere/**/*.jpg"], "--inputs /nowhere/"),
    (empty_model, [], "m.onnx: empty file"),
    (text_model, [], "m.onnx: not an ONNX model"),
    (half_model, [], "m.onnx: not an ONNX model, or damaged"),
    (no_model, [], "no ONNX model; make the demo with `make demo`"),
    (nothing, ["--model", "/nowhere/m.onnx"], "/nowhere/m.onnx: no such file"),
    (nothing, ["--engine", "both"], "no Torch checkpoint"),
    (nothing, ["--batch", "0"], "--batch: got '0'"),
    (nothing, ["--batch", "1,x"], "--batch: got '1,x'"),
    (nothing, ["--engine", "tflite"], "unknown engine 'tflite'"),
    (nothing, ["--providers", "TPU"], "unknown provider 'TPU'"),
    (nothing, ["--budget", "0"], "--budget: got 0"),
    (nothing, ["--budget", "soon"], "'--budget': Input should be a valid number"),
    (nothing, ["--json", "."], "is a folder; expected a file"),
    (nothing, ["--json", "/proc/none/r.json"], "cannot write into"),
    (nothing, ["--inputs", "~nobody-here/*.jpg"], "there is no user 'nobody-here'"),
    (nothing, ["--model", "~nobody-here/m.onnx"], "there is no user 'nobody-here'"),
    (nothing, ["--no-such-option"], "--no-such-option"),
    (no_folder, [], "cannot write into"),
    (broken_config, [], "config.yaml: not YAML"),
]


@pytest.mark.parametrize(("damage", "arguments", "message"), BAD)
def test_bad_input_gets_one_line_and_2(
    experiment: Path, damage: Callable[[Path], None], arguments: list[str], message: str
) -> None:
    damage(experiment)
    answer = run(experiment, *arguments)
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert answer.returncode == 2, answer.stderr
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in answer.stderr
    assert [path for path in records(experiment) if path.name.endswith(".json")] == []


def test_a_full_disk_is_one_line_and_leaves_no_half_record(experiment: Path) -> None:
    answer = run(experiment, fsize="5000")
    assert answer.returncode == 2
    assert "error: cannot write" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert records(experiment) == []
