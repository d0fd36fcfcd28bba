"""H-1, H-2: restored releases go whole after a month, but for those that hold a model in use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from opslib.core.files import hide_name
from opslib.core.served import ServedModel, ServedState, served_state_path
from tests.upkeep.places import Place, set_age, tiny_model
from tests.upkeep.test_models_prune import answering, point_at

HOME = "releases/restored"


def restore(place: Place, number: int, *, days: float) -> Path:
    """A release as it lies restored; returns its model."""
    folder = f"{HOME}/release-202601{number:02d}-000000-abc1234"
    model = place.write(
        f"{folder}/export/model-{number}.onnx", tiny_model() + b"\x12\x01%d" % number
    )
    place.write(f"{folder}/VERSION.txt", "1")
    (model.parent / "latest.onnx").symlink_to(model.name)
    set_age(place.exp / folder, days)
    return model


def left(place: Place) -> list[int]:
    found = (place.exp / HOME).glob("release-*")
    return sorted(int(path.name[14:16]) for path in found)


def test_those_of_a_month_ago_go_and_other_folders_stay(place: Place, tmp_path: Path) -> None:
    restore(place, 1, days=31)
    restore(place, 2, days=29)
    mine = place.write(f"{HOME}/mine/model.onnx", days=400)
    set_age(mine.parent, 400)
    outside = restore(place, 3, days=400).parents[1].rename(tmp_path / "outside")
    (place.exp / HOME / "release-20260103-000000-abc1234").symlink_to(outside)
    record = place.run().record
    assert left(place) == [2, 3]
    assert mine.exists()
    assert (outside / "VERSION.txt").exists()
    assert record.freed_by_duty_bytes["restored releases"] > 0
    assert place.targets() == []


def test_one_that_holds_what_is_in_service_or_was_before_stays(place: Place) -> None:
    models = [restore(place, number, days=60) for number in range(1, 6)]
    served = [
        ServedModel(path=path, sha256="0" * 64, version_tag="t", generation=1, switched_at_utc="")
        for path in models[:2]
    ]
    ServedState(current=served[0], previous=(served[1],)).write(served_state_path(place.config))
    place.config_path.with_name(".env").write_text(f"MODEL_PATH={models[2]}\n")
    (place.exp / "export").mkdir()
    (place.exp / "export" / "latest.onnx").symlink_to(models[3])
    place.run()
    assert left(place) == [1, 2, 3, 4]


@pytest.mark.parametrize("answer", ["name", "digest"])
def test_one_that_a_service_elsewhere_serves_stays(place: Place, answer: str) -> None:
    models = [restore(place, number, days=60) for number in range(1, 4)]
    body = {
        "name": {"model_path": f"/inside/its/container/{models[1].name}"},
        "digest": {"model_sha256": hashlib.sha256(models[1].read_bytes()).hexdigest()},
    }[answer]
    with answering(200, json.dumps(body)) as url:
        point_at(place, url)
        place.run()
    assert left(place) == [2]


def test_one_that_comes_into_use_after_the_plan_is_skipped(place: Place) -> None:
    model = restore(place, 1, days=60)
    planned = place.plan()
    place.config_path.with_name(".env").write_text(f"MODEL_PATH={model}\n")
    outcome = planned.plan.execute()
    assert "in use by now: MODEL_PATH" in outcome.skipped[0].reason
    assert model.exists()


def test_a_deletion_that_was_killed_is_finished_by_the_next_run(place: Place) -> None:
    folder = restore(place, 1, days=1).parents[1]
    hidden = folder.rename(hide_name(folder, "deleted"))
    place.run()
    assert not hidden.exists()


def test_an_unreadable_state_of_the_service_keeps_every_one(place: Place) -> None:
    restore(place, 1, days=60)
    place.write("served.json", "{")
    record = place.run().record
    assert left(place) == [1]
    assert "restored releases" in {one.duty for one in record.skipped}
