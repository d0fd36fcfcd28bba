"""The sweep: ONNX Runtime settings raced against each other."""
