#!/usr/bin/env bash
# onnxruntime 1.31.1: axes that carry one name in the graph need not have one size when it runs.
# Guess before the run: a batch whose axes named alike differ is refused, as one with a wrong fixed
# axis is; the name is the only thing that an exporter has to say that they belong together.
# Seen: [N, 3, N, N] takes 2 x 3 x 8 x 5 without a word; the same graph with fixed axes refuses it.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$place/venv/bin/python" - <<'P'
import sys
import numpy as np, onnxruntime as ort
from onnx import TensorProto, helper

def run(axes):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value("x", axes)], [value("y", [axes[0], 3, 1, 1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    try:
        return list(session.run(None, {"x": np.zeros((2, 3, 8, 5), np.float32)})[0].shape)
    except Exception as error:
        return type(error).__name__

seen = run(["N", 3, "N", "N"]), run([2, 3, 2, 2])
print("named alike:", seen[0], "| fixed:", seen[1])
sys.exit(0 if seen == ([2, 3, 1, 1], "InvalidArgument") else 1)
P
