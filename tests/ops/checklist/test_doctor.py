"""The doctor finds what is missing, says what works all the same, and shows no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from opslib.core.config import load_config
from opslib.inference.providers import probe_provider
from opslib.ops.checklist.doctor import Finding, examine, list_next_steps
from opslib.serving.keys import make_key
from tests.models import write_config, write_images, write_onnx
from tests.ops.checklist.conftest import DEGRADED, answering
from tests.running import run_python


def find(config_path: Path, area: str, needle: str = "") -> Finding:
    found = [one for one in examine(load_config(config_path)) if one.area == area]
    return next(one for one in found if needle in one.seen)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_onnx(tmp_path / "exp/export/m.onnx")
    (tmp_path / "images").mkdir()
    return write_config(tmp_path, "client: {url: 'http://127.0.0.1:9'}\nservice: {port: 9}\n")


def run_doctor(config_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_python(
        [sys.executable, "-m", "opslib.cli", "doctor", "--config", str(config_path)],
        env={**os.environ, "COLUMNS": "200", **variables},
    )


def test_a_usable_host_ends_with_zero_and_says_what_to_do_next(place: Path) -> None:
    answer = run_doctor(place)
    assert answer.returncode == 0, answer.stdout
    assert "CPU: a session starts on it" in answer.stdout
    assert "start the service: `make serve`" in answer.stdout


def test_without_a_model_it_ends_with_3_and_says_how_to_make_one(place: Path) -> None:
    (place.parent / "exp/export/m.onnx").unlink()
    answer = run_doctor(place)
    assert answer.returncode == 3
    assert (
        "1. make the demo: `make demo`; your own model and images: paths.exp_dir" in answer.stdout
    )


def test_a_model_path_that_leads_nowhere_is_a_problem_and_another_one_is_noted(place: Path) -> None:
    env = place.with_name(".env")
    env.write_text("MODEL_PATH=gone.onnx\n")
    found = find(place, "pin")
    assert (found.state, found.next_step) == ("problem", f"correct or clear MODEL_PATH in {env}")
    env.write_text("MODEL_PATH=exp/export/m.onnx\n")
    assert find(place, "pin").state == "note"


def test_an_impossible_value_in_the_env_file_is_named_with_the_file_to_correct(place: Path) -> None:
    place.with_name(".env").write_text("MAX_UPLOAD_MB=plenty\n")
    found = find(place, ".env", "MAX_UPLOAD_MB: got 'plenty'")
    assert found.next_step == f"correct it in {place.with_name('.env')}"


def test_images_and_serving_code_that_are_not_there_are_problems(place: Path) -> None:
    (place.parent / "images").rmdir()
    place.write_text(place.read_text() + "preprocess: {function: 'no.such:preprocess'}\n")
    assert find(place, "images", "no such folder").state == "problem"
    assert find(place, "code_root", "no.such").state == "problem"


def test_the_images_of_both_globs_are_counted_by_suffix(place: Path) -> None:
    folder = place.parent / "images/val/single/K-1"
    write_images(folder, 3)
    (folder / "0.jpg").rename(folder / "0.PNG")
    (folder / "0.json").touch()
    found = find(place, "images", "/val/**/*")
    assert (found.state, found.seen.partition(": ")[2]) == (
        "ok",
        "2 .jpg, 1 .png; left out: 1 .json",
    )
    other = find(place, "images", "/train/**/*: no image")
    assert other.state == "note"
    assert "images.train" in (other.next_step or "")


def test_a_class_map_that_is_none_is_a_problem(place: Path) -> None:
    place.write_text(place.read_text() + "images: {labels: classes.json}\n")
    assert "classes.json: cannot be read" in find(place, "labels").seen
    (place.parent / "classes.json").write_text('{"K-1": 0, "K-2": 1}')
    assert find(place, "labels").seen.endswith("classes.json: 2 codes")


def test_a_secret_is_never_shown_and_a_resolved_path_is(place: Path) -> None:
    key = make_key()
    place.with_name(".env").write_text(f"API_KEY={key}\n")
    answer = run_doctor(place, PILLSNAP_BENCH__BUDGET_S="7", SOME_TOKEN=key)
    assert key not in answer.stdout + answer.stderr
    assert f"exp_dir {place.parent}/exp" in answer.stdout
    assert "budget_s 7" in answer.stdout
    assert "overridden by the environment: PILLSNAP_BENCH__BUDGET_S" in answer.stdout


def test_a_weak_key_is_a_problem_and_an_old_one_a_note(place: Path) -> None:
    env = place.with_name(".env")
    env.write_text("API_KEY=abcdefgh12345678\n")
    assert find(place, "key").state == "problem"
    env.write_text(f"# API_KEY since 2020-01-01T00:00:00+00:00\nAPI_KEY={make_key()}\n")
    assert find(place, "key").state == "note"
    env.write_text(f"API_KEY={make_key()}\n")
    assert find(place, "key").state == "ok"


def test_a_missing_package_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def without_rich(name: str) -> str:
        if name == "rich":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without_rich)
    found = find(place, "packages")
    assert found.state == "problem"
    assert "rich is missing" in found.seen


def test_a_provider_that_cannot_start_says_why(place: Path) -> None:
    assert probe_provider("CPU") is None
    problem = probe_provider("CUDA")
    assert problem is None or "libcuda" in problem or "driver" in problem or "build" in problem


def test_cuda_alone_that_cannot_start_is_a_problem_but_with_a_fallback_a_note(place: Path) -> None:
    if probe_provider("CUDA") is None:
        pytest.skip("CUDA starts here")
    assert find(place, "provider", "CUDA").state == "note"
    place.write_text(place.read_text() + "onnx: {providers: [CUDA]}\n")
    assert find(place, "provider", "CUDA").state == "problem"


def test_problems_come_before_notes_and_no_step_twice() -> None:
    found = [
        Finding("a", "note", "x", "later"),
        Finding("b", "problem", "y", "now"),
        Finding("c", "problem", "z", "now"),
    ]
    assert list_next_steps(found) == ["now", "later"]


def test_a_service_that_is_degraded_is_a_problem(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, DEGRADED) as url:
        monkeypatch.setenv("PILLSNAP_CLIENT__URL", url)
        finding = find(place, "service")
    assert finding.state == "problem"
    assert "degraded: wanted model-b, serves model-a" in finding.seen


def test_a_damaged_card_is_a_problem_and_a_missing_one_a_note(place: Path) -> None:
    assert "m.onnx: no card" in find(place, "model", "no card").seen
    card = place.parent / "exp/export/m.json"
    card.write_bytes(b"")
    found = find(place, "model")
    assert found.state == "problem"
    assert "m.json: evidence that is there but cannot be read" in found.seen
    assert "restore the card" in (found.next_step or "")
