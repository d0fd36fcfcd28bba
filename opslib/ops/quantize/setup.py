"""What a quantization is asked for, resolved and checked before any time is spent."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from opslib.core.cards import ModelCard
from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError, ParameterError
from opslib.core.files import ensure_writable, sha256_file
from opslib.core.models import find_model_files
from opslib.inference.contract import find_img_size, read_num_classes
from opslib.inference.engine import EngineRequest, session_settings
from opslib.inference.find_model import find_card, find_onnx
from opslib.inference.images import ImageSet, pick_images
from opslib.inference.preprocess import Preprocessor, load_preprocessor
from opslib.ops.quantize import labels as shown
from opslib.ops.quantize.request import QuantizeRequest
from opslib.ops.quantize.source import check_source
from opslib.ops.quantize.variants import CalibrationImages
from opslib.timing.station import Workload

KEPT_FOLDER = "quantized"
ALL = "all"
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class QuantizeSetup:
    """A request with nothing left open; `calibration_note` says why there are no such images."""

    config: Config
    model: Path
    card: ModelCard | None
    out: Path | None
    kept: Path
    images: ImageSet
    labels: shown.Labels
    class_names: tuple[str, ...]
    preprocessor: Preprocessor
    img_size: int
    calibration: ImageSet | None
    calibration_note: str | None
    max_drop_pp: float
    budget_s: float
    request: EngineRequest

    @property
    def names(self) -> tuple[str, ...]:
        """The validation images as file names."""
        return tuple(str(path) for path in self.images.paths)

    def calibration_images(self) -> CalibrationImages | None:
        """Return the images that set the ranges of static quantization, if there are any."""
        if self.calibration is None:
            return None
        paths = tuple(str(path) for path in self.calibration.paths)
        return CalibrationImages(paths, self.preprocessor, self.img_size)

    def at(self, model: Path, batch_size: int, *, spinning: bool = True) -> EngineRequest:
        """Return the request to run `model` on the CPU at a batch size."""
        given = self.request.settings
        settings = replace(given, allow_spinning=given.allow_spinning and spinning)
        return replace(self.request, path=model, batch_size=batch_size, settings=settings)

    def workload(self) -> Workload:
        """Return the images that are timed."""
        function, root = self.config.preprocess.function, self.config.code_root
        return Workload(self.names[:256], self.img_size, function, root)


def prepare_quantize(config: Config, request: QuantizeRequest) -> QuantizeSetup:
    """Return `request` resolved against `config`. Raises UsageError: something is missing, damaged
    or impossible; nothing was written."""
    section = config.quantize
    max_drop_pp = section.max_drop_pp if request.max_drop_pp is None else request.max_drop_pp
    if not 0 < max_drop_pp < 100:
        raise ParameterError(f"--max-drop: got {max_drop_pp:g}; expected points above 0, below 100")
    budget_s = section.budget_s if request.budget_s is None else request.budget_s
    if not 0 < budget_s < float("inf"):
        raise ParameterError(f"--budget: got {budget_s:g}; expected seconds above 0")
    count = parse_samples(request.samples)
    model = find_onnx(config, request.model)
    check_source(model)
    if request.out is not None:
        check_out(request.out, model)
    card = find_card(config, model)
    preprocessor = load_preprocessor(config.preprocess.function, config.code_root)
    img_size = find_img_size(model, card, config.preprocess.img_size)
    if not img_size:
        raise ModelError(
            f"{model}: takes images of any size; set preprocess.img_size in the configuration"
        )
    images = _find_samples(config, request, count)
    images, labels, class_names = _label(config, images, model, card)
    if request.require_labels and not labels.known:
        raise InputError(f"--require-labels: the images have no labels: {labels.note}")
    calibration, note = _find_calibration(
        config, request.calibration, images, section.calibration_images
    )
    kept = config.exp_dir / KEPT_FOLDER
    out = request.out.absolute() if request.out else None
    for folder in (config.records_dir, kept, *([out.parent] if out else [])):
        ensure_writable(folder)
    return QuantizeSetup(
        config=config,
        model=model,
        card=card,
        out=out,
        kept=kept / model.resolve().stem,
        images=images,
        labels=labels,
        class_names=class_names,
        preprocessor=preprocessor,
        img_size=img_size,
        calibration=calibration,
        calibration_note=note,
        max_drop_pp=max_drop_pp,
        budget_s=budget_s,
        request=EngineRequest(
            "onnx",
            model,
            ("CPU",),
            settings=session_settings(config),
            weights_in_memory=True,  # this process runs it: a mapping could end it with SIGBUS
        ),
    )


def parse_samples(text: str | None) -> int | None:
    """Return the number of samples asked for, `all` as a number beyond any, None as None. Raises
    ParameterError: neither `all` nor a whole number from 1 to a thousand million."""
    if text is None:
        return None
    plain = text.strip().lower()
    if plain == ALL:
        return _NO_LIMIT
    if re.fullmatch(r"0*[1-9][0-9]{0,8}|10{9}", plain):
        return int(plain)
    brief = text if len(text) <= 40 else f"{text[:40]}..."
    raise ParameterError(f"--n-samples: got {brief!r}; expected a whole number from 1 up, or all")


def check_out(out: Path, model: Path) -> None:
    """Refuse an output that is no ONNX name, a folder, or one of the model's own files. Raises
    ParameterError: the message says which."""
    if out.suffix != ".onnx":
        raise ParameterError(f"--out: got {out}; expected a file name that ends in .onnx")
    if out.is_dir():
        raise ParameterError(f"--out: {out} is a folder; expected a file name")
    own = {path.resolve() for path in find_model_files(model).all}
    if out.resolve() in own or (out.exists() and any(out.samefile(path) for path in own)):
        raise ParameterError(f"--out: {out} is the input model itself; give it another name")


def _find_samples(config: Config, request: QuantizeRequest, count: int | None) -> ImageSet:
    limit = count or config.quantize.samples
    images = pick_images(config, "val", request.inputs or None, limit=limit, strict=request.strict)
    found = len(images.paths) + len(images.skipped)
    if count is not None and count != _NO_LIMIT and found < count:
        raise InputError(
            f"--n-samples {count:,}: only {found:,} images match {images.pattern}; "
            "ask for fewer, or for all"
        )
    return images


def _label(
    config: Config, images: ImageSet, model: Path, card: ModelCard | None
) -> tuple[ImageSet, shown.Labels, tuple[str, ...]]:
    """The images with what they show, and the names of the classes."""
    names = card.class_names if card else ()
    if config.images.labels is None:
        return images, shown.find_labels(images.paths, names), names
    labels = shown.read_label_map(config.resolve(config.images.labels))
    count = (card.num_classes if card else None) or read_num_classes(model)
    shown.check_label_map(labels, names, count, model.name)
    return *shown.pick_labelled(images, labels), names or labels.names


def _find_calibration(
    config: Config, given: str | None, images: ImageSet, count: int
) -> tuple[ImageSet | None, str | None]:
    """The calibration images without those that are validated on, by place and by content."""
    option = "--calibration"
    try:
        found = pick_images(config, "train", given or None, limit=count)
    except InputError as error:
        if given:
            raise InputError(str(error).replace("--inputs", option, 1)) from error
        return None, f"no calibration images: {error}; name some with {option}"
    taken = {path.resolve() for path in images.paths}
    contents = {sha256_file(path) for path in images.paths}
    both = [one for one in found.paths if one.resolve() in taken or sha256_file(one) in contents]
    if len(both) < len(found.paths):
        return found.without(both), None
    problem = f"every image of {found.pattern} is validated on too; calibrate on others"
    if given:
        raise InputError(f"{option}: {problem}")
    return None, problem
