"""INT8 variants of a float32 ONNX model: the required dynamic one and those worth comparing."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opslib.core.errors import ModelError
from opslib.core.files import hidden_folder
from opslib.core.models import find_model_files
from opslib.inference.preprocess import Preprocessor
from opslib.inference.runtime_words import shorten_error

Report = Callable[[float, str], None]
Method = Literal["dynamic", "dynamic-gemm", "static-minmax", "static-entropy"]

GATED = "dynamic"
QUANTIZABLE = ("Conv", "MatMul", "Gemm", "ConvTranspose", "Attention", "LSTM", "GRU")
CALIBRATION_BATCH = 8
EXTERNAL_FROM_BYTES = 1 << 30
_QUANTIZED_OPS = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Variant:
    """One way to quantize, named in advance; `gated` is the row that decides the verdict."""

    name: Method
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
    types = static_types(machine)
    return (
        Variant(
            "dynamic",
            "Dynamic QInt8",
            "quantize_dynamic(weight_type=QInt8), every operator it knows",
            static=False,
            gated=True,
        ),
        Variant(
            "dynamic-gemm",
            "Dynamic MatMul/Gemm",
            "quantize_dynamic(weight_type=QInt8) without the convolutions",
            static=False,
        ),
        Variant(
            "static-minmax", "Static QDQ, MinMax", f"QDQ {types} per channel, MinMax", static=True
        ),
        Variant(
            "static-entropy",
            "Static QDQ, Entropy",
            f"QDQ {types} per channel, Entropy",
            static=True,
        ),
    )


def static_types(machine: str | None = None) -> Literal["U8S8", "S8S8"]:
    """Return activation and weight types: U8S8 on x86, where S8S8 is slow, S8S8 elsewhere."""
    name = (machine or platform.machine()).lower()
    return "U8S8" if name in ("x86_64", "amd64", "i686") else "S8S8"


def check_source(path: Path) -> None:
    """Refuse a model that cannot be quantized: missing, INT8 already, float16, nothing to do.

    Raises:
        ModelError: one line that says why.
    """
    import onnx

    find_model_files(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own classes share no base but Exception
        raise ModelError(f"{path}: not an ONNX model, or damaged ({error})") from error
    ops = Counter(node.op_type for node in model.graph.node)
    quantized = [name for name in ops if _is_quantized(name)]
    if quantized:
        shown = ", ".join(f"{ops[name]} {name}" for name in sorted(quantized))
        raise ModelError(f"{path}: already quantized ({shown}); expected the float32 export")
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    weights = [one.data_type for one in model.graph.initializer]
    inputs = [one.type.tensor_type.elem_type for one in model.graph.input]
    if any(kind in halves for kind in (*weights, *inputs)):
        raise ModelError(f"{path}: a float16 model; expected the float32 export")
    if not any(name in ops for name in QUANTIZABLE):
        raise ModelError(
            f"{path}: has no operator that can be quantized; expected one of "
            f"{', '.join(QUANTIZABLE[:3])}"
        )


def copy_source(path: Path, folder: Path) -> Path:
    """Copy the model and its sidecars into `folder`, where the quantizer may write beside it."""
    files = find_model_files(path)
    for one in files.all:
        target = folder / one.relative_to(files.path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one, target)
    return folder / files.path.name


def prepare_model(source: Path, target: Path) -> Path:
    """Write the model optimized and with inferred shapes, as static quantization needs it.

    Raises:
        ModelError: shape inference cannot read it.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    external = find_model_files(source).size_bytes > EXTERNAL_FROM_BYTES
    with _quiet():
        try:
            quant_pre_process(str(source), str(target), save_as_external_data=external)
        except Exception:  # symbolic shape inference raises bare exceptions for what it lacks
            try:
                quant_pre_process(
                    str(source),
                    str(target),
                    skip_symbolic_shape=True,
                    save_as_external_data=external,
                )
            except Exception as error:
                raise ModelError(
                    f"{source.name}: cannot be prepared for quantization: {shorten_error(error)}"
                ) from error
    return target


def quantize_variant(
    variant: Variant,
    *,
    source: Path,
    prepared: Path,
    target: Path,
    calibration: CalibrationImages | None,
    report: Report = lambda _share, _what: None,
) -> tuple[str, ...]:
    """Write one variant to `target` and return what a reader must know of how it was made.

    Raises:
        ModelError: the quantizer refuses the model, or a static variant has no images.
    """
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


def _quantize_dynamic(
    variant: Variant, source: Path, prepared: Path, target: Path
) -> tuple[str, ...]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def run(model: Path) -> None:
        with _quiet():
            quantize_dynamic(
                str(model),
                str(target),
                op_types_to_quantize=["MatMul", "Gemm"] if variant.name == "dynamic-gemm" else None,
                weight_type=QuantType.QInt8,
                use_external_data_format=_is_large(model),
            )

    notes = []
    try:
        run(source)
    except Exception as first:  # the quantizer raises classes of several libraries
        try:
            run(prepared)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot quantize it: {shorten_error(error)}") from error
        reason = shorten_error(first).removeprefix("[ShapeInferenceError] ")
        notes.append(f"Made after quant_pre_process, since shape inference needs it: {reason}.")
    if variant.name == "dynamic" and "ConvInteger" in count_ops(target):
        notes.append(
            "Each convolution's weights share one scale: dynamic quantization ignores per_channel "
            "for convolutions."
        )
    return tuple(notes)


def _quantize_static(
    variant: Variant, prepared: Path, target: Path, images: CalibrationImages, report: Report
) -> tuple[str, ...]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    name = "MinMax" if variant.name == "static-minmax" else "Entropy"
    method = getattr(CalibrationMethod, name)
    activation = QuantType.QUInt8 if static_types() == "U8S8" else QuantType.QInt8
    with hidden_folder(target) as folder:
        try:
            cache = _calibrate(prepared, folder, method, images, report, variant.title)
            with _quiet():
                quantize_static(
                    str(prepared),
                    str(target),
                    None,
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=activation,
                    weight_type=QuantType.QInt8,
                    calibrate_method=method,
                    use_external_data_format=_is_large(prepared),
                    calibration_cache_path=cache,
                )
        except ModelError:
            raise
        except Exception as error:  # the quantizer raises classes of several libraries
            raise ModelError(f"ONNX Runtime cannot quantize it: {shorten_error(error)}") from error
    return ()


def _calibrate(
    prepared: Path,
    folder: Path,
    method: Any,
    images: CalibrationImages,
    report: Report,
    title: str,
) -> Path:
    """Collect ranges a small batch at a time, so that memory does not grow with the images."""
    from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    with _quiet():
        calibrator = create_calibrator(
            prepared,
            list({*QLinearOpsRegistry, *QDQRegistry}),
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=method,
            use_external_data_format=_is_large(prepared),
        )
    fixed = calibrator.infer_session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else CALIBRATION_BATCH
    name = calibrator.infer_session.get_inputs()[0].name
    count = len(images.paths)
    starts = range(0, count - size + 1, size) if isinstance(fixed, int) else range(0, count, size)
    if not len(starts):
        raise ModelError(f"{count} calibration images; the model's batch size is fixed at {size}")
    for start in starts:
        report(start / count, f"calibrating {title}: {start} of {count} images")
        batch = images.preprocessor.run_checked(images.paths[start : start + size], images.img_size)
        with _quiet():
            calibrator.collect_data(_OneBatch({name: batch}))
    with _quiet():
        cache = folder / "ranges.json"
        save_tensors_data(calibrator.compute_data(), cache)
    return cache


class _OneBatch:
    """A calibration reader of a single batch."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _is_quantized(op_type: str) -> bool:
    integer = op_type.endswith("Integer") or op_type.startswith(("QLinear", "QGemm", "QAttention"))
    return integer or op_type in _QUANTIZED_OPS


def _is_large(model: Path) -> bool:
    return find_model_files(model).size_bytes > EXTERNAL_FROM_BYTES


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's chatter off the screen; its errors still rise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
