"""H-1: `last_*.pt` older than 14 days go; `best.pt` and what is in use stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from opslib.core.errors import ConfigError
from opslib.core.served import ServedModel, ServedState, served_state_path
from tests.damage import UNREADABLE
from tests.upkeep.places import Place, make_place, set_age


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


PATTERNS = (
    "checkpoint_patterns: [checkpoints/last_*.pt, checkpoints/stage*_classification_last.pt, "
    "checkpoints/stage*_detection_last.pt, checkpoints/epoch_*.pt, checkpoints/periodic/*.pt]"
)


def test_each_pattern_keeps_its_newest_and_the_best_stay(tmp_path: Path) -> None:
    place = make_place(tmp_path, PATTERNS)
    kept = {
        "last_2.pt",
        "stage3_classification_last.pt",
        "stage3_detection_last.pt",
        "stage3_classification_best.pt",
        "epoch_030.pt",
        "mine.pt",
    }
    going = {"last_1.pt", "stage2_classification_last.pt", "epoch_010.pt", "epoch_020.pt"}
    for number, name in enumerate(sorted(going) + sorted(kept)):
        place.write(f"checkpoints/{name}", days=90 - number)
    place.write("checkpoints/periodic/step_1.pt", days=40)
    place.write("checkpoints/periodic/step_2.pt", days=30)
    place.write("checkpoints/periodic/step_best.pt", days=50)
    place.write("checkpoints/periodic/notes.txt", days=50)
    place.write("checkpoints/other/step_1.pt", days=50)
    place.run()
    assert left(place) == {*kept, "periodic", "other"}
    periodic = {path.name for path in (place.exp / "checkpoints/periodic").iterdir()}
    assert periodic == {"step_2.pt", "step_best.pt", "notes.txt"}
    assert not place.targets()


def test_a_file_of_two_patterns_stays_where_it_is_the_newest_of_one(tmp_path: Path) -> None:
    place = make_place(tmp_path, "checkpoint_patterns: [checkpoints/a_*.pt, checkpoints/*_z.pt]")
    for name, days in {"a_z.pt": 60, "b_z.pt": 80, "a_1.pt": 40, "a_0.pt": 70}.items():
        place.write(f"checkpoints/{name}", days=days)
    place.run()
    assert left(place) == {"a_z.pt", "a_1.pt"}


def test_one_that_a_link_beside_it_or_a_model_means_stays_in_any_folder(tmp_path: Path) -> None:
    place = make_place(tmp_path, PATTERNS)
    for number in range(4):
        place.write(f"checkpoints/periodic/step_{number}.pt", days=60 - number)
    (place.exp / "checkpoints/periodic/resume.pt").symlink_to("step_0.pt")
    place.write_model("model-a.onnx", card={"ckpt_path": "checkpoints/periodic/step_1.pt"})
    place.run()
    periodic = {path.name for path in (place.exp / "checkpoints/periodic").iterdir()}
    assert periodic == {"step_0.pt", "step_1.pt", "step_3.pt", "resume.pt"}


def test_a_folder_that_is_a_link_out_of_the_experiment_is_not_followed(tmp_path: Path) -> None:
    place = make_place(tmp_path, PATTERNS)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(3):
        set_age(Path(shutil.copy(__file__, elsewhere / f"step_{number}.pt")), 60)
    place.write("checkpoints/mine.pt")
    (place.exp / "checkpoints/periodic").symlink_to(elsewhere)
    record = place.run().record
    assert len(list(elsewhere.iterdir())) == 3
    assert any("a link leads out of the experiment" in one.reason for one in record.skipped)


@pytest.mark.parametrize(
    "pattern",
    ["/mnt/x/last_*.pt", "../last_*.pt", "checkpoints/../*.pt", "*/last.pt", "last_*.pt", "a/*"],
)
def test_a_pattern_that_leads_elsewhere_or_takes_everything_is_refused(
    tmp_path: Path, pattern: str
) -> None:
    place = make_place(tmp_path, f"checkpoint_patterns: ['{pattern}']")
    with pytest.raises(ConfigError, match=r"maintenance\.checkpoint_patterns.*expected a "):
        place.plan()
