"""The graph that a session really runs: two settings with the same one differ in name alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from opslib.core.files import sha256_tree
from opslib.core.models import find_model_files
from opslib.inference.engine import EngineRequest
from opslib.inference.onnx_engine import make_session_options
from opslib.inference.providers import ProviderChoice, select_onnx_providers


def digest_optimized_graph(request: EngineRequest) -> str | None:
    """Return the SHA-256 of the model as ONNX Runtime rewrites it for these settings, weights
    included, or None where it cannot be written (a provider that compiles its own engine)."""
    choice = select_onnx_providers(request.providers, cuda_options=request.settings.cuda)
    with tempfile.TemporaryDirectory(prefix="pillops-graph-") as folder:
        try:
            _write(request, choice, Path(folder) / "optimized.onnx")
        except Exception:  # ONNX Runtime's own classes share no base but Exception
            return None
        return sha256_tree([path for path in Path(folder).iterdir() if path.is_file()])


def _write(request: EngineRequest, choice: ProviderChoice, path: Path) -> None:
    import onnxruntime as ort

    options = make_session_options(request.settings, choice)
    options.optimized_model_filepath = os.fspath(path)
    ort.InferenceSession(
        os.fspath(find_model_files(request.path).path),
        sess_options=options,
        providers=list(choice.names),
        provider_options=list(choice.options),
    )
