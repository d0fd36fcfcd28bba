"""H-1: what writers that died left behind goes after a day; what may be a person's stays."""

from __future__ import annotations

import subprocess
import sys

import pytest

from opslib.core.files import hide_name
from opslib.ops.release.proving import WORK_NAME
from opslib.ops.release.scratch import scratch_folder
from opslib.upkeep.rotate import run_rotation
from tests.upkeep.places import Place, set_age

RANDOM = "pillops-0123456789abcdef"


@pytest.mark.parametrize(
    "folder",
    ["export", "checkpoints", "reports", "releases", "quantized", "quantized/a", "logs/jobs", ".."],
)
def test_a_half_written_file_goes_after_a_day(place: Place, folder: str) -> None:
    old = place.write(f"{folder}/.model-a.onnx.{RANDOM}.tmp", days=1.1)
    young = place.write(f"{folder}/.model-b.onnx.{RANDOM}.tmp", days=0.9)
    place.run()
    assert not old.exists()
    assert young.exists()


def test_what_our_own_writers_leave_when_they_are_killed_goes_whatever_it_is(place: Place) -> None:
    export = place.write("export/model.onnx").parent
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from opslib.core.files import folder_atomic, link_atomic, open_atomic\n"
        "folder = Path(sys.argv[1]); Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "with folder_atomic(folder / 'new') as aside, open_atomic(folder / 'a.json'):\n"
        "    (aside / 'inside').touch(); link_atomic(folder / 'latest.onnx', 'model.onnx')\n"
    )
    subprocess.run([sys.executable, "-c", code, export], check=False)
    left = [path for path in export.iterdir() if path.name != "model.onnx"]
    assert len(left) == 3
    for path in (*left, *export.glob(".new.*/inside")):
        set_age(path, 3)
    place.run()
    assert [path.name for path in export.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    "name",
    [
        "export/.model.json.metadata",
        "export/.env",
        "export/.model-a.onnx.k3v9_abq",
        "checkpoints/.best.pt.20260930",
        "checkpoints/.best.pt.before_2",
        ".served.json.20261001",
        "export/.model-a.onnx.deleted",
        "export/.model-a.onnx.tmp",
        f"export/model.onnx.{RANDOM}.tmp",
        "logs/.api.out.rotating.json.20261001",
        "logs/archive/.api.out.gz.20261001",
        "releases/.pins.json.20261001",
        "releases/restored/.release-20261101-000000-abc1234.20261001/export/model.onnx",
        "releases/restored/.release-20261101-000000-abc1234.deleted/export/model.onnx",
        "releases/restored/.proof-read/model.onnx",
        "export/.drill-0a1b2c3d/mine.onnx",
        "quantized/a/.copying.20261001/mine.onnx",
    ],
)
def test_what_may_be_a_persons_stays(place: Place, name: str) -> None:
    path = place.write(name, days=400)
    for folder in (path.parent, path.parents[1]):
        if folder != place.exp:
            set_age(folder, 400)
    with scratch_folder(place.config.restore_dir, WORK_NAME):
        place.run()
    assert path.exists()


def test_a_rotation_leaves_a_persons_copies_beside_the_log(place: Place) -> None:
    place.write("logs/cloudflared.log")
    mine = [
        place.write(f"logs/.cloudflared.log{ending}")
        for ending in (
            ".rotation.json.20261001",
            ".rotating.json.20261001",
            ".20261001.gz.kept_old",
        )
    ]
    ours = place.write(f"logs/..cloudflared.log.rotation.json.{RANDOM}.tmp")
    run_rotation(place.config, show=lambda line: None)
    assert all(path.exists() for path in mine)
    assert not ours.exists()


def test_a_file_that_is_written_still_stays(place: Place) -> None:
    path = place.write(f"export/.model-a.onnx.{RANDOM}.tmp", days=3)
    with path.open("ab"):
        set_age(path, 3)
        assert not place.targets()


def test_a_half_filled_folder_goes_when_all_in_it_is_old(place: Place) -> None:
    for number, days in ((0, 3.0), (1, 0.1)):
        folder = f"releases/restored/.release-20261101-000000-abc1234.{RANDOM[:-1]}{number}.tmp"
        place.write(f"{folder}/export/model.onnx", days=days)
        set_age(place.exp / folder / "export", 3)
        set_age(place.exp / folder, 3)
    place.run()
    left = [path.name for path in (place.exp / "releases" / "restored").iterdir()]
    assert left == [f".release-20261101-000000-abc1234.{RANDOM[:-1]}1.tmp"]


def test_bad_models_of_a_drill_whose_keeper_died_too_are_removed(place: Place) -> None:
    bad = hide_name(place.exp / "export" / "drill")
    place.write(f"export/{bad.name}/bad.onnx", days=3)
    set_age(bad, 3)
    place.run()
    assert not bad.exists()
