"""A restored release put to work: a service of its own, both ways into service, golden answers.

The service runs beside the one in production and takes nothing from it: a free loopback port, a
key of its own, the CPU, and an experiment folder that is thrown away.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from opslib.core.cards import GoldenAnswer, read_card
from opslib.core.config import Config
from opslib.core.errors import GateFailedError, storage_errors
from opslib.core.files import write_text_atomic
from opslib.core.models import find_model_files
from opslib.core.sections import ClientSection
from opslib.inference.golden import MAX_PROBABILITY_DIFF
from opslib.serving.live import describe_degraded
from opslib.serving.staging import StagedService

STAND_IN = "stand-in.onnx"
# Appended to an ONNX file: one more entry of ModelProto.metadata_props, field 14. Same network,
# another digest.
_EXTRA_METADATA = b"\x72\x15\x0a\x07pillops\x12\x0astands in "
_CONTENT_TYPES = {".png": "image/png", ".bmp": "image/bmp", ".webp": "image/webp"}
_ANSWER_TIMEOUT_S = 30.0
_FIELDS = {"request_field", "path_field", "digest_field", "loaded_field"}


class RestoreTestError(GateFailedError):
    """A restored release does not do what it promises; the message names what."""


@dataclass(frozen=True)
class RestoredService:
    """A running service on a restored release."""

    url: str
    headers: dict[str, str]
    reload_timeout_s: float

    def check_health(self) -> None:
        """Refuse a service that serves another model than it was told to. Raises RestoreTestError:
        it says that it is degraded, or does not answer."""
        degraded = describe_degraded(self._ask("GET", "/health"))
        if degraded is not None:
            raise RestoreTestError(f"/health says {degraded}")

    def version(self) -> dict[str, Any]:
        """Return what `/version` says."""
        return self._ask("GET", "/version")

    def reload(self, model: Path) -> dict[str, Any]:
        """Switch to `model` and return the answer."""
        return self._ask("POST", "/reload", json={"model_path": str(model)})

    def predict(self, image: Path) -> dict[str, Any]:
        """Return what `/predict` answers to an image file."""
        kind = _CONTENT_TYPES.get(image.suffix.lower(), "image/jpeg")
        files = {"image": (image.name, image.read_bytes(), kind)}
        return self._ask("POST", "/predict", files=files)

    def _ask(self, method: str, route: str, **content: Any) -> dict[str, Any]:
        content["timeout"] = self.reload_timeout_s if route == "/reload" else _ANSWER_TIMEOUT_S
        try:
            with httpx.Client(headers=self.headers, trust_env=False) as client:
                answer = client.request(method, self.url + route, **content)
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RestoreTestError(f"{route} does not answer: {error}") from error
        if answer.status_code != 200 or not isinstance(found, dict):
            said = found.get("detail", answer.text) if isinstance(found, dict) else answer.text
            raise RestoreTestError(f"{route} answers {answer.status_code}: {str(said)[:400]}")
        return found


@contextmanager
def start_staged(config: Config, home: Path, work: Path, model: Path) -> Iterator[RestoredService]:
    """Start a service on the release restored in `home`, `MODEL_PATH` naming `model`. `work` is an
    empty folder for the copy of `config`, the logs and the stand-in; models may be served from it.
    Raises DeadlineError: it does not answer in time; OpsError: it refuses the model; the message is
    what it said."""
    path = _copy_config(config, work, model, home.parent)
    told = {"MODEL_PATH": str(model), "RATE_LIMIT_PER_MIN": "1000000"}
    limit_s = config.reload.trial_timeout_s + 60.0
    # Variables of this process, whose answer the copy holds, would lead the service back.
    with StagedService(path, variables=told, deadline_s=limit_s, overrides=False) as service:
        yield RestoredService(service.running.url, service.running.headers, limit_s)


def _copy_config(config: Config, work: Path, model: Path, home: Path) -> Path:
    """A copy of `config` for a service that must not touch its experiment, and that serves one
    model, by the names that are asked for here."""
    content = config.model_dump(mode="json", exclude={"source"}) | {"models": {}}
    code_root = str(config.code_root) if config.code_root is not None else None
    content["client"] |= ClientSection().model_dump(include=_FIELDS)
    content["paths"] |= {"exp_dir": str(work / "exp"), "data_root": str(config.data_root)}
    content["paths"]["code_root"] = code_root
    content["export"]["out_dir"] = str(model.parent)
    content["reload"] |= {"restore_dir": str(home), "resident_models": 1}
    content["reload"]["model_dirs"] = [str(config.resolve(p)) for p in config.reload.model_dirs]
    content["service"] |= {"host": "127.0.0.1", "workers": 1}
    content["onnx"]["providers"] = "CPU"
    path = work / "config.yaml"
    write_text_atomic(path, yaml.safe_dump(content, sort_keys=False))
    return path


def make_stand_in(model: Path, folder: Path) -> Path:
    """Make another model of the same network in `folder`: the same weights, another digest. Raises
    StorageError: the disk is full."""
    files = find_model_files(model)
    with storage_errors(f"make a stand-in for {model.name}"):
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / STAND_IN
        shutil.copyfile(files.path, target)
        with target.open("ab") as file:
            file.write(_EXTRA_METADATA)
        for sidecar in files.sidecars:
            place = folder / sidecar.relative_to(files.path.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(sidecar, place)
    return target


def check_version(service: RestoredService, sha256: str) -> dict[str, Any]:
    """Return `/version` where it says that the model of this digest is served. Raises
    RestoreTestError: another one is."""
    found = service.version()
    said = str(found.get("model_sha256"))
    if said != sha256:
        wanted = f"the release's model is {sha256[:12]}…"
        raise RestoreTestError(f"/version says sha256 {said[:12]}…, {wanted}")
    return found


def check_answers(service: RestoredService, model: Path) -> list[float]:
    """Ask the golden images of `model`'s card over `/predict` and return the difference of each in
    a probability; none where it has no such images. Raises RestoreTestError: an answer is not the
    card's; the message names the image."""
    card = read_card(model)
    differences = []
    for answer in card.golden if card else ():
        image = model.parent / answer.image
        if not image.is_file():
            raise RestoreTestError(f"{answer.image}: the golden image is missing")
        found = service.predict(image)
        differences.append(compare_answer(answer, found["class_id"], found["confidence"]))
    return differences


def compare_answer(answer: GoldenAnswer, class_id: int, confidence: float) -> float:
    """Return how far `confidence` lies from the card's probability of that class. Another class is
    allowed only where the card's own two probabilities are that close. Raises RestoreTestError: the
    answer is another one."""
    found = f"{answer.image} is class {class_id}"
    if not 0 <= class_id < len(answer.probabilities):
        raise RestoreTestError(f"{found}, its card has no such class")
    promised, best = answer.probabilities[class_id], answer.probabilities[answer.class_id]
    if class_id != answer.class_id and best - promised > MAX_PROBABILITY_DIFF:
        raise RestoreTestError(f"{found}, its card says {answer.class_id}")
    difference = abs(confidence - promised)
    if not difference <= MAX_PROBABILITY_DIFF:
        differs = f"differs from its card by {difference:.3f} in a probability"
        raise RestoreTestError(f"{answer.image} {differs} (at most {MAX_PROBABILITY_DIFF:g})")
    return difference
