"""What a benchmark is asked to measure, resolved and checked before any time is spent."""

from dataclasses import dataclass, replace
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ModelError, ParameterError
from opslib.core.files import ensure_writable
from opslib.core.models import find_model_files
from opslib.inference import engine as loading
from opslib.inference.contract import check_input, find_img_size
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.inference.find_model import find_card, find_checkpoint, find_onnx
from opslib.inference.images import ImageSet, pick_images
from opslib.inference.preprocess import load_preprocessor
from opslib.inference.reference import FACTORY, reference_path
from opslib.ops.bench.request import BenchRequest
from opslib.timing.station import Workload

ENGINES = ("onnx", "torch")
LARGEST_BATCH = 4096
MOST_THREADS = 1024
LARGEST_IMAGE = 4096


@dataclass(frozen=True)
class BenchSetup:
    """A request with nothing left open: engines by name, images, batch sizes and budget."""

    config: Config
    engines: dict[str, EngineRequest]
    images: ImageSet
    img_size: int | None
    batch_sizes: tuple[int, ...]
    budget_s: float

    def at_batch(self, engine: str, batch_size: int) -> EngineRequest:
        """Return the request of one engine at one batch size."""
        return replace(self.engines[engine], batch_size=batch_size)

    def reference(self, engine: str, batch_size: int, folder: Path) -> EngineRequest:
        """Return the request of the reference network in `folder` beside one engine.

        No thread of either spins between calls where that would slow the other; a single thread
        does not, and then the options are those of the engine itself.
        """
        own = self.at_batch(engine, batch_size)
        spins = engine == "onnx" and own.settings.allow_spinning
        if spins and own.settings.intra_op_num_threads != 1:
            own = replace(own, settings=replace(own.settings, force_spinning_stop=True))
        return replace(own, path=reference_path(folder, engine), factory=FACTORY)

    def workload(self, img_size: int) -> Workload:
        """Return the images and their preprocessing at `img_size` pixels."""
        names, config = tuple(map(str, self.images.paths)), self.config
        return Workload(names, img_size, config.preprocess.function, config.code_root)


def prepare_bench(config: Config, request: BenchRequest) -> BenchSetup:
    """Return `request` resolved against `config`. Raises UsageError: something is missing, damaged,
    unknown or impossible; nothing was written."""
    section = config.bench
    engine = request.engine or section.engine
    if engine not in (*ENGINES, "both"):
        raise ParameterError(f"--engine: unknown engine {engine!r}; expected onnx, torch or both")
    batch_sizes = request.batch or section.batch
    wrong = next((size for size in batch_sizes if not 1 <= size <= LARGEST_BATCH), None)
    if wrong is not None:
        raise ParameterError(f"--batch: got {wrong}; expected 1 to {LARGEST_BATCH}")
    budget_s = section.budget_s if request.budget_s is None else request.budget_s
    if not 0 < budget_s < float("inf"):
        raise ParameterError(f"--budget: got {budget_s:g}; expected seconds above 0")
    if request.threads is not None and not 0 <= request.threads <= MOST_THREADS:
        raise ParameterError(
            f"--threads: got {request.threads}; expected 0 (all usable) to {MOST_THREADS}"
        )
    base = EngineRequest(
        engine="onnx",
        path=Path(),
        providers=loading.requested_providers(config, request.providers),
        settings=loading.session_settings(config, threads=request.threads),
        factory=config.torch.factory,
        safe_globals=config.torch.safe_globals,
        code_root=config.code_root,
    )
    engines, img_size = _resolve_engines(config, request, engine, base)
    load_preprocessor(config.preprocess.function, config.code_root)
    most, strict = section.max_images, request.strict
    images = pick_images(config, "val", request.inputs, limit=most, strict=strict)
    ensure_writable(config.records_dir)
    sizes = tuple(dict.fromkeys(batch_sizes))
    return BenchSetup(config, engines, images, img_size, sizes, budget_s)


def choose_img_size(setup: BenchSetup, facts: dict[str, EngineFacts]) -> int:
    """Return the input size in pixels: that of the setup, else what a loaded model fixes. Raises
    ModelError: nothing says it, or the ONNX model takes other images."""
    if "onnx" in setup.engines and setup.img_size:
        check_input(setup.engines["onnx"].path, setup.img_size)
    sizes = [_input_size(setup.engines[engine].path.name, fact) for engine, fact in facts.items()]
    found = setup.img_size or next(filter(None, sizes), None)
    if found is None:
        raise ModelError(
            "the model takes images of any size; set preprocess.img_size in the configuration"
        )
    return found


def _input_size(name: str, facts: EngineFacts) -> int | None:
    """The size in pixels that a model's input fixes, or None where it takes any."""
    shape = facts.input_shape
    if len(shape) != 4 or shape[1] not in (None, 3) or shape[2] != shape[3]:
        raise ModelError(f"{name}: its input is {list(shape)}; expected [N, 3, S, S] images")
    if shape[3] is not None and not 1 <= shape[3] <= LARGEST_IMAGE:
        raise ModelError(f"{name}: its input is {shape[3]} px; expected 1 to {LARGEST_IMAGE}")
    return shape[3]


def _resolve_engines(
    config: Config, request: BenchRequest, engine: str, base: EngineRequest
) -> tuple[dict[str, EngineRequest], int | None]:
    configured = config.preprocess.img_size
    if engine == "torch":
        path = find_checkpoint(config, request.checkpoint or request.model, None)
        return {"torch": replace(base, engine="torch", path=path)}, configured
    onnx = find_onnx(config, request.model)
    find_model_files(onnx)
    card = find_card(config, onnx)
    engines = {"onnx": replace(base, path=onnx)}
    if engine == "both":
        checkpoint = find_checkpoint(config, request.checkpoint, card)
        engines["torch"] = replace(base, engine="torch", path=checkpoint)
    return engines, find_img_size(onnx, card, configured)
