#!/usr/bin/env bash
# onnx 1.23.2: its own reference evaluator cannot run an 8-bit model of opset 13 to 18, although the
# operator is defined there; onnxruntime's quantizer writes such models unless the source is newer.
# Guess before the run: the reference runs every operator at every opset that onnx defines.
# Seen: QuantizeLinear runs at 18, DequantizeLinear raises "No implementation … found 19, 21, 23, 25".
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
cd "$place"
venv/bin/python - <<'P'
import sys
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

def run(opset):
    constants = [numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    try:
        return ReferenceEvaluator(model).run(None, {"x": np.array([1.0, 2.2], np.float32)})[0].tolist()
    except RuntimeError as error:
        return str(error)

seen = {opset: run(opset) for opset in (13, 18, 19)}
for opset, said in seen.items():
    print(opset, said)
good = seen[19] == [1.0, 2.0]
sys.exit(0 if good and all("No implementation for operator 'DequantizeLinear'" in str(seen[one]) for one in (13, 18)) else 1)
P
