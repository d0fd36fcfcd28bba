"""H-1: `last_*.pt` older than 14 days go; `best.pt` and what is in use stay."""

from __future__ import annotations

import json

import pytest

from opslib.core.served import ServedModel, ServedState, served_state_path
from tests.damage import UNREADABLE
from tests.upkeep.places import Place


def left(place: Place) -> set[str]:
    return {path.name for path in (place.exp / "checkpoints").iterdir()}


def test_old_last_checkpoints_go_and_nothing_else(place: Place) -> None:
    for name in ("best.pt", "previous.pt", "last_001.pt", "last_002.pt", "last_003.txt"):
        place.write(f"checkpoints/{name}", days=15)
    place.write("checkpoints/last_010.pt", days=13)
    place.write("checkpoints/last_011.pt", days=1)
    place.run()
    assert left(place) == {"best.pt", "previous.pt", "last_003.txt", "last_010.pt", "last_011.pt"}


def test_the_newest_stays_however_old_it_is(place: Place) -> None:
    place.write("checkpoints/last_001.pt", days=900)
    place.write("checkpoints/last_002.pt", days=800)
    place.run()
    assert left(place) == {"last_002.pt"}


def test_what_a_kept_model_was_exported_from_stays(place: Place) -> None:
    for number in range(1, 6):
        place.write(f"checkpoints/last_{number}.pt", days=30 - number)
    place.write_model("model-a.onnx", card={"ckpt_path": "/elsewhere/checkpoints/last_1.pt"})
    report = {"onnx_path": "model-a.onnx", "ckpt_path": "checkpoints/last_2.pt"}
    place.write("export/export_report.json", json.dumps(report))
    place.run()
    assert left(place) == {"last_1.pt", "last_2.pt", "last_5.pt"}


def test_it_goes_together_with_the_last_model_that_came_from_it(place: Place) -> None:
    place.write("checkpoints/last_1.pt", days=30)
    place.write("checkpoints/last_2.pt", days=3)
    for number in range(7):
        card = {"ckpt_path": "checkpoints/last_1.pt"} if number == 0 else None
        place.write_model(f"model-{number}.onnx", days=30 - number, card=card)
    place.run()
    assert left(place) == {"last_2.pt"}
    assert not place.targets()


def test_a_checkpoint_that_is_linked_served_or_pinned_stays(place: Place) -> None:
    for number in range(1, 6):
        place.write(f"checkpoints/last_{number}.pt", days=30 - number)
    folder = place.exp / "checkpoints"
    (folder / "resume.pt").symlink_to("last_1.pt")
    served = ServedModel(
        path=folder / "last_2.pt",
        sha256="0" * 64,
        version_tag="t",
        generation=1,
        switched_at_utc="",
    )
    ServedState(current=served).write(served_state_path(place.config))
    place.config_path.with_name(".env").write_text("MODEL_PATH=exp/checkpoints/last_3.pt\n")
    place.run()
    assert left(place) == {"resume.pt", "last_1.pt", "last_2.pt", "last_3.pt", "last_5.pt"}


def test_one_that_comes_into_use_after_the_plan_is_skipped(place: Place) -> None:
    place.write("checkpoints/last_1.pt", days=30)
    place.write("checkpoints/last_2.pt", days=20)
    planned = place.plan()
    place.write_model("model-a.onnx", card={"ckpt_path": "checkpoints/last_1.pt"})
    outcome = planned.plan.execute()
    assert "model-a.onnx was made from it" in outcome.skipped[0].reason
    assert left(place) == {"last_1.pt", "last_2.pt"}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["export_report.json", "model-a.json"])
def test_no_checkpoint_goes_while_a_card_that_may_name_it_cannot_be_read(
    place: Place, name: str, kind: str
) -> None:
    for number in range(1, 4):
        place.write(f"checkpoints/last_{number}.pt", days=30 - number)
    place.write_model("model-a.onnx", card={"ckpt_path": "checkpoints/last_1.pt"})
    report = {"onnx_path": "model-a.onnx", "ckpt_path": "checkpoints/last_2.pt"}
    place.write("export/export_report.json", json.dumps(report))
    UNREADABLE[kind](place.exp / "export" / name)
    done = place.run()
    assert left(place) == {"last_1.pt", "last_2.pt", "last_3.pt"}
    assert f"{name}: evidence that is there but cannot be read" in str(done)
