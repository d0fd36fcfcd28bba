"""What a timed call spans, and where its time goes."""

from __future__ import annotations

from typing import Literal

from opslib.core.records import Part

Boundary = Literal["inference", "end_to_end"]


class StagesMs(Part):
    """Where an end-to-end call spends its time: medians in milliseconds for a whole batch.

    `preprocess` is decode and transform together; foreign preprocessing cannot be split.
    """

    decode: float | None
    transform: float | None
    preprocess: float
    inference: float
