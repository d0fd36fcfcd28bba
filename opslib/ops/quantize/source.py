"""The model that is to be quantized: whether it can be, and a copy of it to work on."""

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from opslib.core.errors import ModelError
from opslib.core.models import find_model_files

QUANTIZABLE = ("Conv", "MatMul", "Gemm", "ConvTranspose", "Attention", "LSTM", "GRU")
EXTERNAL_FROM_BYTES = 1 << 30
_QUANTIZED = re.compile(
    r"QLinear|QGemm|QAttention|.*Integer$|(Dynamic)?QuantizeLinear$|DequantizeLinear$"
)


def check_source(path: Path) -> None:
    """Refuse a model that cannot be quantized: missing, INT8 already, optimized, float16, nothing
    to do. Raises ModelError: one line that says why."""
    import onnx

    find_model_files(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's own classes share no base but Exception
        raise ModelError(f"{path}: not an ONNX model, or damaged ({error})") from error
    nodes = [*model.graph.node, *(node for one in model.functions for node in one.node)]
    ops = Counter(node.op_type for node in nodes)
    quantized = _count({name: count for name, count in ops.items() if _QUANTIZED.match(name)})
    if quantized:
        raise ModelError(f"{path}: already quantized ({quantized}); expected the float32 export")
    # Of an optimized session's own nodes shape inference knows nothing.
    own = [node for node in model.graph.node if node.domain.startswith("com.microsoft")]
    fused = _count(
        Counter(
            node.op_type
            for node in own
            if node.domain.endswith(".nchwc") or node.op_type.startswith(("Fused", "Nhwc"))
        )
    )
    if fused:
        raise ModelError(
            f"{path}: already optimized by ONNX Runtime ({fused} of its own "
            "domain), which cannot be quantized; expected the export as it was before"
        )
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


def is_large(model: Path) -> bool:
    """Return whether the model's weights have to be kept in a file of their own."""
    return find_model_files(model).size_bytes > EXTERNAL_FROM_BYTES


def _count(ops: Mapping[str, int]) -> str:
    return ", ".join(f"{ops[name]} {name}" for name in sorted(ops))
