"""Which models must never be deleted."""

from __future__ import annotations

from pathlib import Path

from opslib.core.files import link_atomic
from opslib.core.served import ServedModel, ServedState, served_state_path
from opslib.serving.reachable import LiveModel, find_roots
from tests.serving.conftest import Place


def served(path: Path, generation: int) -> ServedModel:
    return ServedModel(
        path=path, sha256="0" * 64, version_tag=path.stem, generation=generation, switched_at_utc=""
    )


def test_the_newest_export_and_what_a_link_points_at_are_roots(place: Place) -> None:
    link_atomic(place.export / "latest.onnx", place.first.name)
    why = {root.path.name: root.why for root in find_roots(place.config)}
    assert why["model-b.onnx"] == "the newest export"
    assert why["model-a.onnx"] == "latest.onnx points at it"


def test_what_is_served_was_served_before_or_is_pinned_is_a_root(place: Place) -> None:
    third, fourth = place.export / "model-c.onnx", place.export / "model-d.onnx"
    state = ServedState(current=served(place.first, 2), previous=(served(third, 1),))
    state.write(served_state_path(place.config))
    place.config_path.with_name(".env").write_text("MODEL_PATH=exp/export/model-d.onnx\n")
    roots = find_roots(place.config, (LiveModel("asked", place.second),))
    reasons = {(root.path.name, root.why) for root in roots}
    assert ("model-a.onnx", "the last one switched in") in reasons
    assert (third.name, "served before") in reasons
    assert (fourth.name, "MODEL_PATH names it") in reasons
    assert ("model-b.onnx", "served now, as /version says") in reasons
