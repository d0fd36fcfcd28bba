"""Bad input ends with one line and exit code 2, before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from opslib.core.errors import ParameterError
from opslib.ops.drill.request import DrillRequest, check_url
from tests.running import run_python
from tests.serving.conftest import Place

DRILL = (sys.executable, "-m", "opslib.cli", "drill")


def pillops(place: Place, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `pillops drill` on an experiment."""
    return run_python(
        [*DRILL, "--config", str(place.config_path), *arguments],
        env=os.environ | variables,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://nosuch.invalid:8000"], "nosuch.invalid: no such host"),
        (["--url", "http://192.0.2.7:8000"], "say confirm: true (--confirm)"),
        (["--url", "ftp://127.0.0.1"], "expected http://HOST:PORT"),
        (["--url", "http://127.0.0.1:99999"], "url: got"),
        (["--load-share", "1.5"], "load_share: got 1.5"),
        (["--load-share", "0"], "load_share: got 0.0"),
        (["--load-share", "nan"], "load_share: got nan"),
        (["--load-share", "0.001"], "load_share: got 0.001"),
        (["--url", "http://127.0.0.1:9", "--long"], "long: loads a service for minutes"),
        (["--swaps", "0"], "swaps: got 0"),
        (["--inputs", "/nowhere/*.jpg"], "no image matches"),
        (["--other", "/nowhere/model.onnx"], "no such file"),
        (["--json", "/"], "is a folder"),
    ],
)
def test_what_cannot_be_drilled_is_refused_in_one_line(
    drill_place: Place, arguments: list[str], said: str
) -> None:
    answer = pillops(drill_place, *arguments)
    assert answer.returncode == 2
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in answer.stderr
    assert not (drill_place.config.records_dir).exists()


def test_without_a_second_model_the_drill_says_what_is_missing(drill_place: Place) -> None:
    drill_place.first.unlink()
    answer = pillops(drill_place)
    assert answer.returncode == 2
    assert "no second model; a drill needs one to swap to and back from" in answer.stderr


def test_the_same_model_under_another_name_is_no_second_model(drill_place: Place) -> None:
    answer = pillops(drill_place, "--other", str(drill_place.second))
    assert answer.returncode == 2
    assert "is the model in service" in answer.stderr


def test_a_service_whose_key_is_not_known_is_not_drilled(drill_place: Place) -> None:
    answer = pillops(drill_place, "--url", "http://127.0.0.1:9")
    assert answer.returncode == 2
    assert "API_KEY: not set" in answer.stderr


def test_a_service_that_does_not_answer_is_not_drilled(drill_place: Place) -> None:
    answer = pillops(drill_place, "--url", "http://127.0.0.1:9", API_KEY="k" * 64)
    assert answer.returncode == 2
    assert "cannot be reached" in answer.stderr


@pytest.mark.parametrize("share", [0.95, -0.1, 2.0])
def test_an_impossible_share_in_the_configuration_is_refused(
    drill_place: Place, share: float
) -> None:
    answer = pillops(drill_place, PILLSNAP_DRILL__LOAD_SHARE=str(share))
    assert answer.returncode == 2
    assert "PILLSNAP_DRILL__LOAD_SHARE" in answer.stderr


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "localhost:8000", "http://[::1]:8000", "http://127.0.0.2"]
)
def test_this_host_needs_no_confirmation(url: str) -> None:
    assert check_url(url, confirm=False).startswith("http://")


def test_another_host_needs_one() -> None:
    with pytest.raises(ParameterError, match="confirm: true"):
        DrillRequest(url="http://192.0.2.7:8000")
    assert DrillRequest(url="http://192.0.2.7:8000", confirm=True).url


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ParameterError) as caught:
        check_url("http://me:hunter22@127.0.0.1:8000", confirm=True)
    assert "hunter22" not in str(caught.value)
