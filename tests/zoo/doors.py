"""One foreign model at the seven doors through which models come in, each opened for real."""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx
from PIL import Image

from opslib.cli import app
from opslib.core.errors import ExitCode, OpsError
from opslib.serving.keys import KEY_VARIABLE
from opslib.serving.staging import RunningService, start_service
from opslib.telling.doors import call_app, print_error
from tests.inference.zoo import SIZE, ZooModel
from tests.models import write_config, write_onnx
from tests.zoo.table import WORKS, expect

COLOURS = {
    "val": ((220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 40)),
    "train": ((180, 20, 40), (20, 180, 40), (40, 20, 180), (160, 180, 20)),
}
NOISE = ("Traceback", "ONNXRuntimeError", "onnxruntime::")
NOTHING_MADE = "could not be made"
SMALL = f"""\
preprocess: {{img_size: {SIZE}}}
onnx: {{providers: [CPU]}}
bench: {{engine: onnx, batch: [1], budget_s: 3, target_half_width_pct: 1.0e+30}}
sweep: {{batch: [1], budget_s: 0.5, threads: [1], spinning: [false], parity_images: 2}}
quantize: {{batch: [1], budget_s: 0.5, samples: 4, calibration_images: 4}}
service: {{workers: 1}}
"""


@dataclass(frozen=True)
class Answer:
    """How a door was left: its exit code, what it said, what it left of a model it refused."""

    code: int
    said: str
    left: tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        """Whether it did its work; that little time decides nothing is no refusal."""
        return self.code in (0, 4) and NOTHING_MADE not in self.said


@dataclass(frozen=True)
class Place:
    """An experiment whose only export is the model."""

    folder: Path
    config: Path
    model: Path


def make_place(folder: Path, one: ZooModel) -> Place:
    """Make an experiment of the model, four images and a report of metrics."""
    for split, colours in COLOURS.items():
        (folder / "images" / split / "a").mkdir(parents=True)
        for at, colour in enumerate(colours):
            Image.new("RGB", (24, 24), colour).save(folder / f"images/{split}/a/{at}.png")
    export, reports = folder / "exp" / "export", folder / "exp" / "reports"
    for made in (export, reports, folder / "exp" / "logs"):
        made.mkdir(parents=True)
    (reports / "metrics.json").write_text(json.dumps({"top1_pct": 97.5}))
    model = export / one.file
    one.write(model)
    return Place(folder, write_config(folder, SMALL), model)


def command(*words: str | Path, variables: dict[str, str] | None = None) -> Answer:
    """Run one command line of `pillops` in this process; a traceback is code -1."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, variables or {}),
    ):
        try:
            code = call_app(app, [str(word) for word in words])
        except OpsError as error:
            code = print_error(error)
        except Exception:
            return Answer(-1, traceback.format_exc())
    return Answer(code, out.getvalue() + err.getvalue())


def knock(door: str, place: Place, live: RunningService) -> Answer:
    """Take the model of a place to one door.

    Args:
        live: a service of another model that may load any below the place's folder.
    """
    before = list_files(place)
    answer = _KNOCKS[door](place, live)
    left = () if answer.works else tuple(sorted(list_files(place) - before))
    return Answer(answer.code, answer.said, left)


def find_fault(one: ZooModel, door: str, answer: Answer) -> str | None:
    """Return how a door took a model otherwise than the table says, or unlike a refusal: with a
    traceback, without the cause, in several lines, or with something left behind."""
    wanted = expect(one, door)
    where = f"{one.name} at {door} ({answer.code}), expected {wanted!r}"
    errors = [line for line in answer.said.splitlines() if line.startswith("error: ")]
    if answer.code < 0:
        return f"{where}: {answer.said}"
    if answer.works:
        return None if wanted == WORKS else f"{where}: it works"
    if wanted not in " ".join(answer.said.split()):
        return f"{where}: {answer.said[-600:]}"
    if len(errors) > 1 or any(noise in answer.said for noise in NOISE):
        return f"{where}: more than one line: {answer.said[-600:]}"
    if answer.code == int(ExitCode.USAGE) and answer.left:
        return f"{where}: left {', '.join(answer.left)}"
    return None


def list_files(place: Place) -> set[str]:
    """The files of a place other than logs and locks."""
    found = (one for one in place.folder.rglob("*") if one.is_file())
    return {
        str(one.relative_to(place.folder))
        for one in found
        if one.parent.name != "logs" and one.suffix != ".lock"
    }


def _doctor(place: Place, _live: RunningService) -> Answer:
    answer = command("doctor", "--config", place.config, variables={"COLUMNS": "999"})
    lines = [one for one in answer.said.splitlines() if one.startswith("model ")]
    bad = any(one.split()[1] == "problem" for one in lines)
    return Answer(3 if bad else min(answer.code, 0), "\n".join(lines) or answer.said)


def _measure(name: str) -> Callable[[Place, RunningService], Answer]:
    return lambda place, _live: command(name, "--model", place.model, "--config", place.config)


def _serve(place: Place, _live: RunningService) -> Answer:
    try:
        with start_service(place.config, variables={"MODEL_PATH": str(place.model)}) as service:
            return ask(service, place)
    except OpsError as error:
        return Answer(2, str(error))


def _reload(place: Place, live: RunningService) -> Answer:
    return command(
        "reload",
        "--path",
        place.model,
        "--host",
        live.url,
        "--config",
        place.config,
        variables={KEY_VARIABLE: live.key},
    )


def _release(place: Place, _live: RunningService) -> Answer:
    return command("release", "create", "--onnx", place.model, "--config", place.config)


def ask(service: RunningService, place: Place) -> Answer:
    """Send an image to a service; it has to answer with classes."""
    image = (place.folder / "images/val/a/0.png").read_bytes()
    with httpx.Client(base_url=service.url, headers=service.headers, trust_env=False) as client:
        files = {"image": ("a.png", image, "image/png")}
        answer = client.post("/predict", files=files, timeout=30)
    return Answer(0 if answer.status_code == 200 else 1, answer.text)


@contextlib.contextmanager
def open_live(folder: Path) -> Iterator[RunningService]:
    """A service that may load every model below `folder`."""
    home = folder / "live"
    (home / "images").mkdir(parents=True)
    write_onnx(home / "exp" / "export" / "good.onnx")
    extra = f"{SMALL}reload: {{model_dirs: [{folder}]}}\n"
    with start_service(write_config(home, extra)) as service:
        yield service


_KNOCKS: dict[str, Callable[[Place, RunningService], Answer]] = {
    "doctor": _doctor,
    "bench": _measure("bench"),
    "sweep": _measure("sweep"),
    "quantize": _measure("quantize"),
    "serve": _serve,
    "reload": _reload,
    "release": _release,
}
