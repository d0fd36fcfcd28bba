#!/usr/bin/env bash
# onnx-ir 1.1.0: ClearMetadataAndDocStringPass empties the graph and its nodes alone. The doc strings
# and metadata of the graph's inputs and of the model itself stay.
# Guess before the run: the pass leaves no metadata and no doc string anywhere in the model.
# Seen: left are the input's doc string and metadata and the model's doc string and metadata.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check onnx==1.23.2 onnx-ir==1.1.0 numpy==2.4.6
cd "$place"
venv/bin/python - <<'P'
import re, sys
import onnx_ir
from onnx import TensorProto, helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
node = helper.make_node("Relu", ["x"], ["y"])
graph = helper.make_graph([node], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
graph = model.graph
parts = {"node": graph.node[0], "input": graph.input[0], "graph": graph, "model": model}
for name, part in parts.items():
    part.doc_string = f"told-{name}-text"
    part.metadata_props.add(key="where", value=f"told-{name}-entry")
inner = onnx_ir.from_proto(model)
ClearMetadataAndDocStringPass()(inner)
left = sorted(set(re.findall(rb"told-\w+-(?:text|entry)", onnx_ir.to_proto(inner).SerializeToString())))
print("left:", *(one.decode() for one in left))
wanted = [b"told-input-entry", b"told-input-text", b"told-model-entry", b"told-model-text"]
sys.exit(0 if left == wanted else 1)
P
