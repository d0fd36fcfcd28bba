"""What the services beside this file serve: the bytes of an image in, one answer out."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np
import onnxruntime as ort

from opslib.inference.preprocess import preprocess


class Model:
    """A session of one intra-op thread; `answer` may be called from several threads."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["PEER_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._size = int(os.environ["PEER_IMG_SIZE"])
        self._names = json.loads(os.environ["PEER_CLASS_NAMES"])

    def answer(self, data: bytes) -> dict[str, Any]:
        """Return the most probable class of an encoded image, and its probability."""
        batch = preprocess([io.BytesIO(data)], self._size)
        logits = self._session.run(None, {self._input: batch})[0][0]
        shares = np.exp(logits - logits.max())
        best = int(logits.argmax())
        return {
            "class_id": best,
            "class_name": self._names[best] if best < len(self._names) else None,
            "confidence": round(float(shares[best] / shares.sum()), 6),
        }
