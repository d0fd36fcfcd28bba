"""Shared by the drill's tests: a small experiment, and how a drill is made short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.conftest import Place, make_place, write_colours

SHORT = (
    "drill: {baseline_s: 0.6, aa_s: 0.6, capacity_s: 0.3, settle_s: 0.3, swaps: 2, images: 8, "
    "load_share: 0.2, rate_max_per_s: 60}\n"
)


def make_drill_place(folder: Path, extra: str = "") -> Place:
    """An experiment with two models and eight images, and a configuration of a short drill."""
    place = make_place(folder, SHORT + "onnx: {providers: [CPU]}\n" + extra)
    write_colours(folder / "images" / "val" / "round")
    return place


@pytest.fixture
def drill_place(tmp_path: Path) -> Place:
    """An experiment of this test's own."""
    return make_drill_place(tmp_path)
