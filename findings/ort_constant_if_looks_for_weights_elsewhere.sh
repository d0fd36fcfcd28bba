#!/usr/bin/env bash
# onnxruntime 1.31.1: a model with its weights in a file beside it and an If whose condition is a
# constant loads only from the folder of the model.
# Guess before the run: weights beside the model are found wherever the process stands, as they are
# for the same model without the If, and for this one without optimization.
# Seen: from another folder the session is refused, "model loaded from bytes escapes working
# directory ... External data path does not exist", although it was loaded by its path.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$place/venv/bin/python" - "$place" <<'P'
import os, sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

place = os.path.join(sys.argv[1], "models")
os.makedirs(place)
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])
weights = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
always = numpy_helper.from_array(np.array(True), "always")
branch = lambda: helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"])], "b", [], [value("z")])
nodes = {
    "plain": helper.make_node("MatMul", ["x", "w"], ["y"]),
    "if": helper.make_node("If", ["always"], ["y"], then_branch=branch(), else_branch=branch()),
}

def try_from(folder, path, level):
    os.chdir(folder)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    try:
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return "loads"
    except Exception as error:
        return "looks elsewhere" if "External data path does not exist" in str(error) else f"raises {error}"

levels = ort.GraphOptimizationLevel
seen = {}
for name, node in nodes.items():
    graph = helper.make_graph([node], "g", [value("x")], [value("y")], [weights, always])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = os.path.join(place, f"{name}.onnx")
    onnx.save(model, path, save_as_external_data=True, location=f"{name}.data", size_threshold=0)
    seen[name, "its own folder"] = try_from(place, path, levels.ORT_ENABLE_ALL)
    seen[name, "/"] = try_from("/", path, levels.ORT_ENABLE_ALL)
    seen[name, "/, no optimization"] = try_from("/", path, levels.ORT_DISABLE_ALL)
for (name, where), outcome in seen.items():
    print(f"{name}, from {where}: {outcome}")
wanted = dict.fromkeys(seen, "loads") | {("if", "/"): "looks elsewhere"}
sys.exit(0 if seen == wanted else 1)
P
