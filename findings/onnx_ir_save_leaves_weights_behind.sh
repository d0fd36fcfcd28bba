#!/usr/bin/env bash
# onnx-ir 1.1.0: a model with external weights, loaded from one folder and saved into another,
# is written without its weights and with a reference that is empty there; nothing is said.
# Guess before the run: saving elsewhere copies or embeds the weights, or refuses.
# Seen: a file of a few hundred bytes; reading it back raises, since `weights.data` is missing.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 onnx-ir==1.1.0 numpy==2.4.6
cd "$place"
venv/bin/python - <<'P'
import os, sys
import numpy as np, onnx, onnx_ir
from onnx import TensorProto, helper, numpy_helper

weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 64])
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [value("x")], [value("y")], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
os.makedirs("first"), os.makedirs("second")
onnx.save(model, "first/m.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
onnx_ir.save(onnx_ir.load("first/m.onnx"), "second/m.onnx")
there = sorted(os.listdir("second"))
try:
    onnx.load("second/m.onnx")
    outcome = "loads"
except Exception as error:
    outcome = f"raises {type(error).__name__}"
print("second folder:", there, os.path.getsize("second/m.onnx"), "bytes;", "reading it back", outcome)
sys.exit(0 if there == ["m.onnx"] and outcome == "raises ValidationError" else 1)
P
