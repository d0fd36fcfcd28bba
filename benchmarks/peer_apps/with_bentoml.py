"""The same as a BentoML service: `bentoml serve with_bentoml:Classifier`.

A worker a core, as its documentation says for a CPU. Its access log and metrics are off, and it is
given the image rather than a path, for which it would write a file.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from model import Model
from PIL import Image


@bentoml.service(
    workers=int(os.environ["PEER_WORKERS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classifier:
    """Classifies the file of the form field `image`."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def predict(self, image: Image.Image) -> dict[str, Any]:
        """Classify one image."""
        return self.model.answer(image)
