"""Two small real models with cards, and one running service for all tests that share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from opslib.core.cards import GoldenAnswer, ModelCard, card_path, list_files
from opslib.core.config import Config, load_config
from opslib.core.files import link_atomic, sha256_file
from opslib.core.models import find_model_files
from opslib.inference.engine import EngineRequest
from opslib.inference.golden import answer_golden
from opslib.inference.opening import open_engine
from opslib.inference.postprocess import to_probabilities
from opslib.inference.preprocess import preprocess
from opslib.serving.keys import KEY_VARIABLE, make_key
from opslib.serving.service import Service
from opslib.serving.settings import load_settings
from opslib.serving.staging import RunningService, start_service
from tests.models import move_into_cache, write_config, write_onnx

CLASSES = ("round", "oval", "capsule")
SIZE = 16


def write_colours(folder: Path, count: int = 8) -> list[Path]:
    """Write plain JPEG images of differing colours, which the small models tell apart."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = []
    for index in range(count):
        colour = tuple(int(value) for value in rng.integers(0, 255, 3))
        paths.append(folder / f"{index}.jpg")
        Image.new("RGB", (40, 32), colour).save(paths[-1])
    return paths


def write_carded(
    path: Path, images: list[Path], *, seed: int, sidecar: bool = False, head: str | None = None
) -> Path:
    """Write a small model with its card: digests, class names, golden answers."""
    write_onnx(path, classes=len(CLASSES), size=SIZE, seed=seed, sidecar=sidecar, head=head)
    write_card(path, images)
    return path


def write_card(path: Path, images: list[Path], names: tuple[str, ...] = CLASSES) -> ModelCard:
    """Write the card of the model at `path`, its golden answers given by the model itself."""
    with open_engine(EngineRequest("onnx", path)) as engine:
        answers = engine.run(preprocess([str(image) for image in images], SIZE))
        probabilities = to_probabilities(answers, engine.facts.postprocess)
    golden = tuple(
        GoldenAnswer(
            image=str(image.relative_to(path.parent)),
            sha256=sha256_file(image),
            class_id=0,
            probabilities=(),
        )
        for image in images
    )
    card = ModelCard(
        backbone="linear",
        num_classes=probabilities.shape[1],
        onnx_path=str(path),
        exported_at_utc="2026-11-01T00:00:00+00:00",
        git_sha="abc1234",
        input_shape=("N", 3, SIZE, SIZE),
        files=list_files(find_model_files(path)),
        class_names=names,
        golden=answer_golden(golden, probabilities),
    )
    card.write(card_path(path))
    return card


@dataclass(frozen=True)
class Place:
    """An experiment with two models: `first` is older, `second` the latest."""

    config_path: Path
    first: Path
    second: Path
    images: list[Path]

    @property
    def config(self) -> Config:
        """The configuration, without the caller's environment."""
        return load_config(self.config_path, {})

    @property
    def export(self) -> Path:
        """The folder of the models."""
        return self.first.parent

    def read_log(self, name: str) -> str:
        """The text of `api.out` or `api.err`."""
        return (self.config.exp_dir / "logs" / name).read_text()


def make_place(folder: Path, extra: str = "") -> Place:
    """Build an experiment in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    export = folder / "exp" / "export"
    images = write_colours(export / "golden")
    first = write_carded(export / "model-a.onnx", images, seed=1)
    second = write_carded(export / "model-b.onnx", images, seed=2, sidecar=True)
    link_atomic(export / "latest.onnx", second.name)
    return Place(write_config(folder, extra), first, second, images)


def make_cached(hub: Path) -> Path:
    """Write a model with weights, card and golden images into a Hugging Face cache; return its
    link in the snapshot."""
    made = hub / "made"
    path = write_carded(made / "net.onnx", write_colours(made / "golden"), seed=3, sidecar=True)
    return move_into_cache(made, hub) / path.name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An experiment of this test's own."""
    return make_place(tmp_path)


@dataclass(frozen=True)
class Live:
    """A running service, its experiment, and a client that holds the key."""

    service: RunningService
    place: Place
    client: httpx.Client

    @property
    def version(self) -> dict[str, object]:
        """What `/version` says."""
        answer: dict[str, object] = self.client.get("/version").json()
        return answer

    def predict(self, path: Path, name: str = "a.jpg", kind: str = "image/jpeg") -> httpx.Response:
        """Send one image file under a given name and type."""
        return self.client.post("/predict", files={"image": (name, path.read_bytes(), kind)})

    def reload(self, path: Path | str) -> httpx.Response:
        """Ask for another model."""
        return self.client.post("/reload", json={"model_path": str(path)})


def open_live(service: RunningService, place: Place) -> Live:
    """A client of a running service."""
    client = httpx.Client(
        base_url=service.url, headers=service.headers, timeout=30, trust_env=False
    )
    return Live(service, place, client)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One service for all tests; each leaves it with a model in service."""
    place = make_place(tmp_path_factory.mktemp("live"))
    variables = {"RATE_LIMIT_PER_MIN": "1000000"}
    with start_service(place.config_path, variables=variables) as service:
        running = open_live(service, place)
        yield running
        running.client.close()


@pytest.fixture
def service(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The parts of a service, in this process, without a model."""
    monkeypatch.setenv(KEY_VARIABLE, make_key())
    (place.config.exp_dir / "logs").mkdir(exist_ok=True)
    one = Service(load_settings(load_config(place.config_path)))
    yield one
    one.close()
