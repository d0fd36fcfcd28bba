#!/usr/bin/env bash
# onnxruntime 1.31.1: what is misspelt in session options is taken without a word, where a typo in
# an attribute's name raises AttributeError.
# Guess before the run: an unknown configuration key, an unknown option of the CPU provider and a
# dimension name that the model does not have are refused; a negative thread count, too.
# Seen: all four are accepted, and the model runs.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$place/venv/bin/python" - <<'P'
import sys
import numpy as np, onnxruntime as ort
from onnx import TensorProto, helper

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
batch = np.ones((2, 3), np.float32)

def try_with(change, providers=("CPUExecutionProvider",)):
    options = ort.SessionOptions()
    try:
        change(options)
        session = ort.InferenceSession(model, options, providers=list(providers))
        return f"accepted, answers {session.run(None, {'x': batch})[0].shape}"
    except Exception as error:
        return f"refused: {type(error).__name__}"

seen = {
    "configuration key": try_with(lambda o: o.add_session_config_entry("session.intra_op.alow_spinning", "0")),
    "provider option": try_with(lambda o: None, [("CPUExecutionProvider", {"use_arenaa": "0"})]),
    "dimension name": try_with(lambda o: o.add_free_dimension_override_by_name("batch", 1)),
    "negative threads": try_with(lambda o: setattr(o, "intra_op_num_threads", -3)),
    "attribute name": try_with(lambda o: setattr(o, "intra_op_threads", 1)),
}
for name, outcome in seen.items():
    print(f"{name}: {outcome}")
silent = all(seen[name].startswith("accepted") for name in list(seen)[:4])
sys.exit(0 if silent and seen["attribute name"] == "refused: AttributeError" else 1)
P
