"""Operations library behind PillSnap's notebooks, scripts and command line.

An operation is a function that takes a configuration and returns a record. Notebooks tell its
story, scripts schedule it, the command line runs it. Importing this package loads none of torch,
onnxruntime, pandas or matplotlib.

It says to ONNX Runtime, which reads it once when it is imported, that nothing is to be reported to
its makers; the processes that ours start inherit that. `onnx.telemetry` allows it, unless the
environment says something itself.
"""

import os

TELEMETRY_SAID = os.environ.get("ORT_DISABLE_TELEMETRY")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
