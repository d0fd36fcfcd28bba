"""The team's two-stage service, played from its written contract, and the tree that it serves from.

It is no service of ours: it loads whatever onnxruntime loads, of whatever kind, and finds out at
the next `/predict` that its classifier is none. Under real uvicorn, in a thread of its own.

    with make_two_stage(folder).serve() as service:
        service.version_answer = "hangs"
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import uvicorn
from dotenv import dotenv_values
from fastapi import Depends, FastAPI, File, HTTPException, Request, UploadFile
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from opslib.core.config import Config, load_config
from opslib.core.files import link_atomic
from opslib.inference.preprocess import transform
from opslib.serving.keys import KEY_VARIABLE, make_key
from tests.models import write_config, write_onnx
from tests.serving.conftest import CLASSES, SIZE, write_card, write_colours

DETECTION, CLASSIFICATION = "detection", "classification"
KINDS = (DETECTION, CLASSIFICATION)
MODELS = "models:\n  detection: {contract: any}\n  classification: {}\n"
HOUR_S = 3600
DAY_S = 24 * HOUR_S
FIRST_DAY = (int(time.time()) // DAY_S - 27) * DAY_S  # recent, as exports are, and never ahead


def write_detector(path: Path, *, seed: int = 0, boxes: int = 10) -> Path:
    """Write a small detector: images `[N, 3, 16, 16]` to `[N, boxes, 6]`; return its path."""
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.normal(size=(3, boxes * 6)).astype(np.float32), "weight"),
        numpy_helper.from_array(np.array([-1, boxes, 6], dtype=np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["all"]),
        helper.make_node("Reshape", ["all", "shape"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", boxes, 6])],
        weights,
    )
    opset = [helper.make_opsetid("", 18)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@dataclass(frozen=True)
class TwoStage:
    """A two-stage experiment: models of both kinds, the oldest first, links to the newest."""

    config_path: Path
    models: Mapping[str, list[Path]]
    images: list[Path]
    key: str = field(repr=False)

    @property
    def root(self) -> Path:
        """The service's own root: its `.env` is here."""
        return self.config_path.parent

    @property
    def export(self) -> Path:
        """The folder of the models."""
        return self.root / "exp" / "export"

    @property
    def config(self) -> Config:
        """The configuration, without the caller's environment."""
        return load_config(self.config_path, {})

    @property
    def detectors(self) -> list[Path]:
        """The detectors that it was made with, the oldest first."""
        return self.models[DETECTION]

    @property
    def classifiers(self) -> list[Path]:
        """The classifiers that it was made with, the oldest first."""
        return self.models[CLASSIFICATION]

    def export_model(self, kind: str, number: int, *, card: bool = False) -> Path:
        """Export one more model, dated so many hours after the first; return its path."""
        moment = FIRST_DAY + number * HOUR_S
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(moment))
        path = self.export / f"{kind}-{stamp}-abc1234.onnx"
        if kind == DETECTION:
            write_detector(path, seed=number)
        else:
            write_onnx(path, classes=len(CLASSES), size=SIZE, seed=number)
        os.utime(path, (moment, moment))
        if card:
            write_card(path, self.images)
        return path

    def link(self, kind: str, model: Path) -> None:
        """Let `latest_<kind>.onnx` mean this model."""
        link_atomic(self.export / f"latest_{kind}.onnx", model.name)

    def pin(self, **models: Path | None) -> None:
        """Write `.env`: the key, and these models under `<KIND>_MODEL_PATH`."""
        pins = [f"{kind.upper()}_MODEL_PATH={path}" for kind, path in models.items() if path]
        text = "\n".join([f"{KEY_VARIABLE}={self.key}", *pins])
        (self.root / ".env").write_text(f"{text}\n")

    @contextmanager
    def serve(self, *, configure: bool = True, **faults: Any) -> Iterator[TwoStageService]:
        """Run the service from this tree; `faults` are set before it starts.

        Args:
            configure: write its address into the configuration, as `client.url`.
        """
        service = TwoStageService(self.root)
        for name, value in faults.items():
            assert hasattr(service, name), name
            setattr(service, name, value)
        if configure:
            text = self.config_path.read_text()
            self.config_path.write_text(f"{text}client: {{url: '{service.url}'}}\n")
        service.start()
        try:
            yield service
        finally:
            service.stop()
            if configure:
                self.config_path.write_text(text)


def make_two_stage(
    folder: Path,
    *,
    each: int = 2,
    pinned: bool = False,
    cards: bool = False,
    models: str = MODELS,
    extra: str = "",
) -> TwoStage:
    """Build a two-stage experiment in `folder`.

    Args:
        each: how many models of each kind; both links mean the newest.
        pinned: `.env` pins the newest of each kind, too.
        cards: the classifiers have cards with golden images.
        models: the configuration's `models:`; empty for one that knows of no kinds.
        extra: more of the configuration.
    """
    images = write_colours(folder / "exp" / "export" / "golden", 2)
    config_path = write_config(folder, models + extra)
    place = TwoStage(config_path, {kind: [] for kind in KINDS}, images, make_key())
    newest = {}
    for kind in KINDS:
        for number in range(each):
            card = cards and kind == CLASSIFICATION
            place.models[kind].append(place.export_model(kind, number, card=card))
        newest[kind] = place.models[kind][-1]
        place.link(kind, newest[kind])
    place.pin(**(newest if pinned else {}))
    return place


class ReloadRequest(BaseModel):
    """What `/reload` takes: either path."""

    detection_path: str | None = None
    classification_path: str | None = None


@dataclass
class Loaded:
    """A model in service."""

    path: Path
    session: Any

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Its first output."""
        name = self.session.get_inputs()[0].name
        answer: np.ndarray[Any, Any] = self.session.run(None, {name: images})[0]
        return answer


class TwoStageService:
    """The whole service; its attributes switch on what may be wrong with it.

    Args:
        root: where its `.env` and `exp/export` lie.

    Attributes:
        async_reload: the handler reads files in the event loop, so that a pipe stops everything.
        fields: names that `/version` has instead of its own ones, such as
            `{"detection_model_path": "detector"}`.
        version_answer: `hangs` never answers, `fails` answers 500.
        missing: kinds that are not loaded when it starts.
        lies: `/reload` says ok and does nothing.
        late_s: how long after it is done `/reload` answers.
        asked: the body of every `/reload`, in order.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.async_reload = False
        self.fields: dict[str, str] = {}
        self.version_answer: Literal["says", "hangs", "fails"] = "says"
        self.missing: set[str] = set()
        self.lies = False
        self.late_s = 0.0
        self.asked: list[dict[str, str]] = []
        self.models: dict[str, Loaded | None] = dict.fromkeys(KINDS)
        self._reading: Path | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket = _bind(0)
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> dict[str, Path | None]:
        """Which model of each kind it has loaded, without asking it."""
        return {kind: one.path if one else None for kind, one in self.models.items()}

    def start(self) -> None:
        """Start it, or start it again, with what `.env` pins, else with what the links mean."""
        self.key = dotenv_values(self.root / ".env")[KEY_VARIABLE]
        for kind in KINDS:
            path = None if kind in self.missing else self._find(kind)
            self.models[kind] = _load(path) if path else None
        if self._socket.fileno() == -1:
            self._socket = _bind(self.port)
        config = uvicorn.Config(
            _make_app(self), log_level="critical", timeout_graceful_shutdown=1, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        run = self._server.run
        self._thread = threading.Thread(target=run, args=([self._socket],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it: from now on its address refuses connections."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self.free()
        self._thread.join(10)
        self._socket.close()
        self._server = None

    @property
    def stopping(self) -> bool:
        """Whether it is about to end."""
        return self._server is None or self._server.should_exit

    def free(self) -> None:
        """End the reading of a pipe, as only its death would."""
        if self._reading is not None:
            with suppress(OSError):
                os.close(os.open(self._reading, os.O_WRONLY | os.O_NONBLOCK))

    def reload(self, asked: dict[str, str]) -> None:
        """Load what was asked for; whichever kind it is."""
        for name, path in asked.items():
            kind = name.removesuffix("_path")
            found = self.root / path
            if not found.exists():
                raise HTTPException(400, f"no such file: {path}")
            self._reading = found
            try:
                if not found.read_bytes():  # what comes out of a pipe that was freed, too
                    raise ValueError("empty")
                loaded = _load(found)
            except Exception as error:
                raise HTTPException(500, f"cannot load {path}: {error}") from error
            finally:
                self._reading = None
            if not self.lies:
                self.models[kind] = loaded

    def predict(self, content: bytes) -> dict[str, Any]:
        """Find the pill and say what it is."""
        detector, classifier = models = [self.models[kind] for kind in KINDS]
        tag = _name(models)  # as of now: another thread may switch meanwhile
        if detector is None or classifier is None:
            raise HTTPException(503, "a model is not loaded")
        with Image.open(BytesIO(content)) as image:
            images = transform([np.asarray(image.convert("RGB"))], SIZE)
        detector.run(images)
        scores = classifier.run(images)
        if scores.ndim != 2:
            raise RuntimeError(f"the classifier answered {scores.shape}")
        likely = np.exp(scores[0] - scores[0].max())
        likely /= likely.sum()
        class_id = int(likely.argmax())
        return {"class_id": class_id, "confidence": float(likely[class_id]), "version_tag": tag}

    @property
    def version_tag(self) -> str:
        """Both models in one word."""
        return _name(list(self.models.values()))

    def _find(self, kind: str) -> Path | None:
        pinned = dotenv_values(self.root / ".env").get(f"{kind.upper()}_MODEL_PATH")
        path = self.root / (pinned or f"exp/export/latest_{kind}.onnx")
        return path if path.exists() else None


def _make_app(service: TwoStageService) -> FastAPI:
    def check_key(request: Request) -> None:
        if request.headers.get("x-api-key") != service.key:
            raise HTTPException(401, "wrong or missing X-API-Key")

    app = FastAPI()
    keyed = [Depends(check_key)]

    @app.get("/health")
    def health() -> dict[str, Any]:
        loaded = {kind: one is not None for kind, one in service.models.items()}
        return {"status": "ok", "device": "cpu", "models_loaded": loaded}

    @app.get("/version", dependencies=keyed)
    async def version() -> dict[str, Any]:
        while service.version_answer == "hangs" and not service.stopping:
            await asyncio.sleep(0.02)
        if service.version_answer != "says":
            raise RuntimeError("/version is broken")
        paths = {f"{kind}_model_path": path for kind, path in service.live.items()}
        said = {name: str(path) if path else None for name, path in paths.items()}
        answer = {"version_tag": service.version_tag, **said}
        return {service.fields.get(name, name): value for name, value in answer.items()}

    @app.post("/reload", dependencies=keyed)
    async def reload(body: ReloadRequest) -> dict[str, Any]:
        asked = body.model_dump(exclude_none=True)
        if not asked:
            raise HTTPException(422, "expected detection_path or classification_path")
        service.asked.append(asked)
        if service.async_reload:
            service.reload(asked)
        else:
            await run_in_threadpool(service.reload, asked)
        await asyncio.sleep(service.late_s)
        return {"ok": True, "version_tag": service.version_tag}

    @app.post("/predict", dependencies=keyed)
    def predict(image: Annotated[UploadFile, File()]) -> dict[str, Any]:
        return service.predict(image.file.read())

    # FastAPI looks annotations up in the module, where the classes above are.
    return app


def _name(models: list[Loaded | None]) -> str:
    return "+".join(one.path.stem if one else "none" for one in models)


def _load(path: Path) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    real = path.resolve()
    providers = ["CPUExecutionProvider"]
    return Loaded(real, onnxruntime.InferenceSession(str(real), options, providers=providers))


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen(128)
    return bound
