"""H-1: releases are pruned by their own plan, as part of the nightly one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opslib.ops.release.build import build_release
from opslib.ops.release.request import ReleaseRequest
from opslib.ops.release.store import list_releases, pin_release
from tests.serving.conftest import make_place as make_serving_place
from tests.upkeep.places import Place, set_age


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with four releases, the oldest of them pinned; two shall be kept."""
    folder = tmp_path_factory.mktemp("stored") / "place"
    extra = "maintenance: {disks: [/]}\nrelease: {keep: 2}\n"
    config = make_serving_place(folder, extra).config
    request = ReleaseRequest(allow_missing_metrics=True, verify=False)
    with pytest.MonkeyPatch.context() as patch:
        for day in range(1, 5):
            patch.setenv("SOURCE_DATE_EPOCH", str(1_790_000_000 + day * 86_400))
            build_release(config, request)
    pin_release(config, list_releases(config)[-1].name)
    return folder


@pytest.fixture
def stored(template: Path, tmp_path: Path) -> Place:
    """A copy of this test's own."""
    shutil.copytree(template, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place" / "config.yaml")


def names(place: Place) -> list[str]:
    return [release.name for release in list_releases(place.config)]


def test_old_releases_go_whole_and_pinned_ones_stay(stored: Place) -> None:
    before = names(stored)
    size = list_releases(stored.config)[2].files
    freed = sum(path.stat().st_size for path in size)
    record = stored.run().record
    assert names(stored) == [before[0], before[1], before[3]]
    assert record.freed_by_duty_bytes["releases"] == freed
    assert not [path for path in stored.config.releases_dir.iterdir() if before[2] in path.name]


def test_a_release_that_was_pinned_after_the_plan_is_skipped(stored: Place) -> None:
    planned = stored.plan()
    pin_release(stored.config, names(stored)[2])
    outcome = planned.plan.execute()
    assert [one.reason for one in outcome.skipped] == ["it is kept by now: pinned"]
    assert len(names(stored)) == 4


def test_an_unreadable_list_of_pins_keeps_every_release_and_model(stored: Place) -> None:
    (stored.config.releases_dir / "pins.json").write_text("{")
    record = stored.run().record
    assert len(names(stored)) == 4
    assert {item.duty for item in record.skipped} == {
        "models",
        "quantized",
        "checkpoints",
        "releases",
        "restored releases",
    }


def test_what_a_killed_run_left_of_a_release_goes_after_a_day(stored: Place) -> None:
    release = list_releases(stored.config)[2]
    release.path.unlink()
    companions = [path for path in release.path.parent.iterdir() if release.name in path.name]
    assert len(companions) == 2
    stored.run()
    assert all(path.exists() for path in companions)
    for path in companions:
        set_age(path, 2)
    stored.run()
    assert not any(path.exists() for path in companions)
