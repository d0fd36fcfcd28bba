"""One loaded model: its engine, what its card says, and the files it was loaded from."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from opslib.core.cards import ModelCard, find_gaps
from opslib.core.config import Config
from opslib.core.errors import ModelError
from opslib.core.models import ModelFiles, find_model_files, is_onnx, resolve_model
from opslib.core.sections import ParitySection
from opslib.inference.contract import Contract, probe_images, resolve_img_size
from opslib.inference.engine import Engine, EngineFacts, EngineRequest, session_settings
from opslib.inference.find_model import find_card
from opslib.inference.opening import open_engine
from opslib.inference.parity import check_parity
from opslib.inference.postprocess import Postprocess, judge_answers, to_probabilities
from opslib.inference.providers import parse_providers
from opslib.serving.pace import Pace

Stamp = tuple[str, int, int, int, int, int]
# Why requests that wait are not answered in one run.
Unbatched = Literal[
    "service.max_batch is 1",
    "the model's batch is fixed",
    "the model is dynamic INT8, which scales an image by those beside it",
    "the model answers an image among others otherwise than alone",
]


@dataclass(frozen=True)
class Candidate:
    """A model file about to be loaded: what it is, by its bytes, before any code runs it.

    `files` lie where the model was found and are watched; `own` are those that are read, tried and
    opened: the service's own copy, or the same. `sha256` is that of `own`.
    """

    files: ModelFiles
    own: ModelFiles
    sha256: str
    stamps: tuple[Stamp, ...]
    card: ModelCard | None

    @property
    def path(self) -> Path:
        """The file it was found as, links resolved."""
        return self.files.path

    @property
    def verified(self) -> bool:
        """Whether a card lists the digests of the files."""
        return self.card is not None and bool(self.card.files)

    @property
    def gaps(self) -> str | None:
        """What is not proved of it; None where card, digests and golden images are there."""
        return find_gaps(self.card)

    @property
    def version_tag(self) -> str:
        """The model's name in answers and logs: its file's stem."""
        return self.path.stem


@dataclass
class LoadedModel:
    """A model ready for requests; `run` may be called from several threads.

    `postprocess` turns its answers into probabilities; where its engine does not know, it is judged
    by answers to probes, once. A run may hold `max_batch` images of several requests, unless
    `unbatched` says why it must not.
    """

    candidate: Candidate
    engine: Engine
    img_size: int
    max_batch: int = 1
    postprocess: Postprocess = field(init=False)
    unbatched: Unbatched | None = field(init=False)
    pace: Pace = field(init=False, default_factory=Pace, repr=False)
    _turn: contextlib.AbstractContextManager[object] = field(
        default_factory=contextlib.nullcontext, repr=False
    )

    def __post_init__(self) -> None:
        self.unbatched = find_obstacle(self.max_batch, self.engine.facts)
        known = self.engine.facts.postprocess
        self.postprocess = known or judge_answers(self.answer(probe_images(self.img_size)))

    @property
    def path(self) -> Path:
        """The file it was loaded from, links resolved."""
        return self.candidate.path

    @property
    def sha256(self) -> str:
        """The digest of model and sidecars."""
        return self.candidate.sha256

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id; empty where no card gives them."""
        return self.candidate.card.class_names if self.candidate.card else ()

    @property
    def contract(self) -> Contract:
        """What a model that follows this one must keep to."""
        facts, card = self.engine.facts, self.candidate.card
        classes = facts.num_classes or (card.num_classes if card else None)
        side = self.img_size
        return Contract(classes, (None, facts.input_shape[1] or 3, side, side), self.class_names)

    @property
    def together(self) -> int:
        """How many images of several requests one run may hold."""
        return 1 if self.unbatched else self.max_batch

    def try_together(self, images: NDArray[np.float32], limits: ParitySection) -> None:
        """Answer images together and one by one; where that is not the same within `limits`, no
        run holds images of several requests."""
        together = self.run(images)
        alone = np.concatenate([self.run(image[None]) for image in images])
        half = self.engine.facts.input_dtype == "float16"
        alike = together.shape == alone.shape
        alike = alike and check_parity(alone, together, limits, half_precision=half).passed
        if not alike and self.unbatched is None:
            self.unbatched = "the model answers an image among others otherwise than alone"

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities `[N, classes]` of inputs float32 `[N, C, H, W]`."""
        return to_probabilities(self.answer(batch), self.postprocess)

    def answer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the answers `[N, columns]` to inputs float32 `[N, C, H, W]`, any N."""
        fixed = self.engine.facts.input_shape[0]
        with self._turn:
            if fixed is None or fixed == len(batch):
                return self.engine.run(batch)
            return _run_in_pieces(self.engine, batch, fixed)

    def is_unchanged(self) -> bool:
        """Return whether the files at the path are still, by inode, size and times, those that
        were loaded; what is in use does not change with them."""
        try:
            return stamp_files(self.candidate.files) == self.candidate.stamps
        except OSError:
            return False

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


def read_candidate(
    config: Config, path: Path, take: Callable[[ModelFiles], ModelFiles] = lambda files: files
) -> Candidate:
    """Return what the file at `path` is: its sidecars, digest, times and card; `take` may return
    other files to use instead of those found, such as a copy of them. A `ModelError` where it is
    missing, unreadable, no model, or changed while it was read; an `InputError` where its card is
    damaged."""
    try:
        onnx = is_onnx(path)
        files = find_model_files(path) if onnx else ModelFiles(resolve_model(path, "a checkpoint"))
        stamps = stamp_files(files)
        own = take(files)
        digest = own.digest()
        if stamp_files(files) != stamps:
            raise ModelError(f"{path}: it is being written; try again when it is complete")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    card = find_card(config, files.path) if onnx else None
    return Candidate(files, own, digest, stamps, card)


def load_candidate(config: Config, candidate: Candidate) -> LoadedModel:
    """Load a candidate, by path, on the configured providers.

    Weights files that are no copy of ours are read into memory, not mapped. That takes twice their
    size while it lasts and holds other threads up. Raises as `open_engine`, and a `ModelError`
    where it takes images of unknown size or changed meanwhile.
    """
    engine = open_engine(
        EngineRequest(
            engine="onnx" if is_onnx(candidate.path) else "torch",
            path=candidate.own.path,
            providers=parse_providers(config.onnx.providers),
            weights_in_memory=candidate.own == candidate.files,
            settings=session_settings(config, threads=config.service.intra_op_num_threads),
            factory=config.torch.factory,
            safe_globals=config.torch.safe_globals,
            code_root=config.code_root,
        )
    )
    turn = contextlib.nullcontext() if engine.facts.provider == "CPU" else threading.Lock()
    try:
        if stamp_files(candidate.files) != candidate.stamps:
            raise ModelError(f"{candidate.path}: it was replaced while it was being loaded")
        own = engine.facts.input_shape[-1]
        size = resolve_img_size(config.preprocess.img_size, candidate.card, own)
        if size is None:
            raise ModelError(f"{candidate.path}: takes any size; set preprocess.img_size")
        return LoadedModel(candidate, engine, size, config.service.max_batch, turn)
    except BaseException:
        engine.close()
        raise


def find_obstacle(max_batch: int, facts: EngineFacts) -> Unbatched | None:
    """Return why no run of a model may hold images of several requests, as far as that is known
    before it has answered any."""
    if max_batch == 1:
        return "service.max_batch is 1"
    if facts.input_shape[0] is not None:
        return "the model's batch is fixed"
    if facts.scales_by_batch:
        return "the model is dynamic INT8, which scales an image by those beside it"
    return None


def stamp_files(files: ModelFiles) -> tuple[Stamp, ...]:
    """Return what changes whenever one of the files does: inode, size and times of each."""
    return tuple(
        (str(path), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        for path, seen in ((path, path.stat()) for path in files.all)
    )


def _run_in_pieces(engine: Engine, batch: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Run a model of fixed batch `size` on any batch; the last piece is padded with its own."""
    answers = []
    for start in range(0, len(batch), size):
        piece = batch[start : start + size]
        padding = np.repeat(piece[-1:], size - len(piece), axis=0)
        answers.append(engine.run(np.concatenate([piece, padding]))[: len(piece)])
    return np.concatenate(answers)
