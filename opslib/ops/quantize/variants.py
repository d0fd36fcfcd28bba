"""INT8 variants of a float32 ONNX model: the required dynamic one and those worth comparing."""

import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opslib.core.errors import ModelError
from opslib.core.files import hidden_folder
from opslib.inference.causes import shorten_error
from opslib.inference.onnx_engine import make_session_options
from opslib.inference.preprocess import Preprocessor
from opslib.inference.providers import SessionSettings, select_onnx_providers
from opslib.ops.quantize.preparation import quiet
from opslib.ops.quantize.source import is_large
from opslib.telling.operation import Progress

GATED = "dynamic"
CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Variant:
    """One way to quantize, named in advance; `gated` is the row that decides the verdict."""

    name: str
    title: str
    how: str
    static: bool
    gated: bool = False


@dataclass(frozen=True)
class CalibrationImages:
    """Images that set the ranges of static quantization, and how they become inputs."""

    paths: tuple[str, ...]
    preprocessor: Preprocessor
    img_size: int


def list_variants(machine: str | None = None) -> tuple[Variant, ...]:
    """Return the variants that are tried on a machine of this kind, the required one first."""
    qdq, dynamic = f"QDQ {static_types(machine)} per channel", "quantize_dynamic(weight_type=QInt8)"
    return (
        Variant(GATED, "Dynamic QInt8", f"{dynamic}, every operator it knows", False, gated=True),
        Variant(
            "dynamic-gemm", "Dynamic MatMul/Gemm", f"{dynamic} without the convolutions", False
        ),
        Variant("static-minmax", "Static QDQ, MinMax", f"{qdq}, MinMax", static=True),
        Variant("static-entropy", "Static QDQ, Entropy", f"{qdq}, Entropy", static=True),
    )


def static_types(machine: str | None = None) -> Literal["U8S8", "S8S8"]:
    """Return activation and weight types: U8S8 on x86, where S8S8 is slow, S8S8 elsewhere."""
    name = (machine or platform.machine()).lower()
    return "U8S8" if name in ("x86_64", "amd64", "i686") else "S8S8"


def quantize_variant(
    variant: Variant,
    *,
    source: Path,
    prepared: Path,
    target: Path,
    calibration: CalibrationImages | None,
    report: Progress = lambda _share, _what: None,
) -> tuple[str, ...]:
    """Write one variant to `target` and return what a reader must know of how it was made. Raises
    ModelError: the quantizer refuses the model, or a static variant has no images."""
    if variant.static:
        if calibration is None:
            raise ModelError("no calibration images; name some with --calibration")
        return _quantize_static(variant, prepared, target, calibration, report)
    return _quantize_dynamic(variant, source, prepared, target)


def count_ops(path: Path) -> dict[str, int]:
    """Return how many nodes of each operator a model has, the most frequent first."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


@contextmanager
def refusals_told() -> Iterator[None]:
    """Make one line of whatever the quantizer raises, which are classes of several libraries."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot quantize it: {shorten_error(error)}") from error


def _quantize_dynamic(
    variant: Variant, source: Path, prepared: Path, target: Path
) -> tuple[str, ...]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def run(model: Path) -> None:
        with quiet():
            quantize_dynamic(
                str(model),
                str(target),
                op_types_to_quantize=["MatMul", "Gemm"] if variant.name == "dynamic-gemm" else None,
                weight_type=QuantType.QInt8,
                use_external_data_format=is_large(model),
            )

    notes = []
    try:
        run(source)
    except Exception as error:  # the quantizer raises classes of several libraries
        with refusals_told():
            run(prepared)
        reason = shorten_error(error).removeprefix("[ShapeInferenceError] ")
        notes.append(f"Made after quant_pre_process, since shape inference needs it: {reason}.")
    if variant.name == "dynamic" and "ConvInteger" in count_ops(target):
        notes.append(
            "Each convolution's weights share one scale: dynamic quantization ignores per_channel "
            "for convolutions."
        )
    return tuple(notes)


def _quantize_static(
    variant: Variant, prepared: Path, target: Path, images: CalibrationImages, report: Progress
) -> tuple[str, ...]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    minmax = variant.name == "static-minmax"
    method = CalibrationMethod.MinMax if minmax else CalibrationMethod.Entropy
    activation = QuantType.QUInt8 if static_types() == "U8S8" else QuantType.QInt8
    with hidden_folder(target) as folder, refusals_told():
        cache = _calibrate(prepared, folder, method, images, report, variant.title)
        with quiet():
            quantize_static(
                str(prepared),
                str(target),
                None,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activation,
                weight_type=QuantType.QInt8,
                calibrate_method=method,
                use_external_data_format=is_large(prepared),
                calibration_cache_path=cache,
            )
    return ()


def _calibrate(
    prepared: Path,
    folder: Path,
    method: Any,
    images: CalibrationImages,
    report: Progress,
    title: str,
) -> Path:
    """Collect ranges a small batch at a time, so that memory does not grow with the images."""
    from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    with quiet():
        calibrator = create_calibrator(
            prepared,
            list({*QLinearOpsRegistry, *QDQRegistry}),
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=method,
            use_external_data_format=is_large(prepared),
        )
    calibrator.infer_session = _open_session(folder / "augmented.onnx")
    given = calibrator.infer_session.get_inputs()[0]
    fixed, count = isinstance(given.shape[0], int), len(images.paths)
    size = given.shape[0] if fixed else CALIBRATION_BATCH
    starts = range(0, count - size + 1 if fixed else count, size)
    if not len(starts):
        raise ModelError(f"{count} calibration images; the model's batch size is fixed at {size}")
    for start in starts:
        report(start / count, f"calibrating {title}: {start} of {count} images")
        batch = images.preprocessor.run_checked(images.paths[start : start + size], images.img_size)
        with quiet():
            calibrator.collect_data(_OneBatch({given.name: batch}))
    with quiet():
        cache = folder / "ranges.json"
        save_tensors_data(calibrator.compute_data(), cache)
    return cache


def _open_session(model: Path) -> Any:
    """A session as the calibrator opens it, but on the CPUs that this process may use."""
    import onnxruntime as ort

    settings = SessionSettings(graph_optimization_level="DISABLE_ALL")
    options = make_session_options(settings, select_onnx_providers(("CPU",)))
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class _OneBatch:
    """A calibration reader of a single batch."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)
