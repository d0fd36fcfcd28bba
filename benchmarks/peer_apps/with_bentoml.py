"""The same as a BentoML service: `bentoml serve with_bentoml:Classifier`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
from model import Model


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
    def predict(self, image: Path) -> dict[str, Any]:
        """Classify one image."""
        return self.model.answer(image.read_bytes())
