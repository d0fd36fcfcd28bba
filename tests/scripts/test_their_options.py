"""The options of the serving repository's scripts, at our doors of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.release.conftest import make_experiment
from tests.two_stage import TwoStage, TwoStageService, make_two_stage
from tests.upkeep.places import make_place

ROOT = Path(__file__).resolve().parents[2]
KEY_VARIABLES = {"API_KEY", "PILLSNAP_API_KEY"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TwoStage, TwoStageService]]:
    place = make_two_stage(tmp_path_factory.mktemp("house"))
    with place.serve() as service:
        yield place, service


def call(script: str, *words: str, config: Path) -> subprocess.CompletedProcess[str]:
    variables = {name: one for name, one in os.environ.items() if name not in KEY_VARIABLES}
    return subprocess.run(
        [ROOT / "scripts" / script, *words, "--config", config],
        capture_output=True,
        text=True,
        check=False,
        env=variables | {"PILLSNAP_PYTHON": sys.executable},
        timeout=60,
    )


@pytest.mark.parametrize("kind", ["detection", "classification"])
@pytest.mark.parametrize("long", [False, True])
def test_a_reload_takes_them(
    house: tuple[TwoStage, TwoStageService], kind: str, *, long: bool
) -> None:
    place, service = house
    model = place.models[kind][0 if long else 1]
    names = ("--path", "--url", "--timeout") if long else ("-p", "-u", "-t")
    words = [names[0], str(model), names[1], service.url, names[2], "30", f"--{kind}"]
    answer = call("reload_model.sh", *words, config=place.config_path)
    assert answer.returncode == 0, answer.stderr
    assert service.live[kind] == model
    assert service.asked[-1] == {f"{kind}_path": str(model)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classification", "--detection"], "kind: got detection and classification"),
        (["--kind", "detection", "--classification"], "kind: got detection and classification"),
        (["--detection"], "is of kind classification by its name"),
        (["-k", "secret"], "put it into .env as API_KEY"),
        (["--key", "secret"], "put it into .env as API_KEY"),
        (["--no-verify"], "every switch is confirmed"),
    ],
)
def test_a_reload_refuses_what_means_something_else_in_one_line(
    house: tuple[TwoStage, TwoStageService], words: list[str], message: str
) -> None:
    place, service = house
    before = len(service.asked)
    model = str(place.classifiers[0])
    answer = call("reload_model.sh", "-p", model, *words, config=place.config_path)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert "secret" not in answer.stderr
    assert len(service.asked) == before


def test_where_there_are_no_kinds_the_one_there_is_is_named(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    model = str(place.write_model("model-a.onnx"))
    answer = call("reload_model.sh", "-p", model, "--classification", config=place.config_path)
    assert answer.returncode == 2
    assert "kind: got 'classification'; expected one of model" in answer.stderr


def test_a_maintenance_takes_a_dry_run_by_its_short_name(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    place.write("checkpoints/last_1.pt", days=90)
    place.write("checkpoints/last_2.pt", days=80)
    before = place.files()
    answer = call("maintenance.sh", "-n", config=place.config_path)
    assert answer.returncode == 0, answer.stderr
    assert "delete checkpoints/last_1.pt" in answer.stdout
    assert place.files() == before


@pytest.mark.parametrize("script", ["maintenance.sh", "backup_release.sh"])
@pytest.mark.parametrize("words", [["-e", "/exp02"], ["--exp-dir", "/exp02"], ["-v"]])
def test_what_is_said_otherwise_here_is_refused_with_how(
    tmp_path: Path, script: str, words: list[str]
) -> None:
    place = make_place(tmp_path)
    answer = call(script, *words, config=place.config_path)
    assert answer.returncode == 2
    how = "leave it away" if words == ["-v"] else "PILLSNAP_EXP_DIR=DIR before the command"
    assert how in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_release_takes_them(tmp_path: Path) -> None:
    place = make_experiment(tmp_path)
    listed = {}
    for name, words in {"all": ["-a"], "one": ["-o", str(place.first)]}.items():
        answer = call("backup_release.sh", *words, config=place.config_path)
        assert answer.returncode == 0, answer.stderr
        tar = ["tar", "tzf", answer.stdout.strip()]
        listed[name] = subprocess.run(tar, capture_output=True, text=True, check=True).stdout
    assert "export/model-b.onnx" in listed["all"]
    assert "export/model-a.onnx" in listed["one"]
    both = call("backup_release.sh", "-a", "--only", config=place.config_path)
    assert both.returncode == 2
    assert "--only, --all-onnx: one model or all of them" in both.stderr
