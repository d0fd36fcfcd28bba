"""Maintenance beside a two-stage service: N of each kind stay, and all that is live or pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from opslib.core.kinds import list_kinds
from opslib.upkeep.maintenance import Maintained, run_maintenance
from tests.two_stage import CLASSIFICATION, DETECTION, KINDS, TwoStage, make_two_stage

KEEP = "maintenance: {keep_onnx: 2, clock_gap_days: 36500, version_timeout_s: 0.5}\n"


def make_house(folder: Path, *, each: int = 6, **given: object) -> TwoStage:
    return make_two_stage(folder, each=each, extra=KEEP, **given)  # type: ignore[arg-type]


def clean(house: TwoStage) -> Maintained:
    return run_maintenance(house.config, show=lambda _line: None)


def left(house: TwoStage, kind: str) -> list[Path]:
    return [path for path in house.models[kind] if path.exists()]


def test_so_many_of_each_kind_stay(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    with house.serve():
        clean(house)
    for kind in KINDS:
        assert left(house, kind) == house.models[kind][-2:]


def test_each_kind_may_keep_another_number(tmp_path: Path) -> None:
    house = make_house(
        tmp_path, models="models:\n  detection: {contract: any, keep: 4}\n  classification: {}\n"
    )
    with house.serve():
        clean(house)
    assert left(house, DETECTION) == house.detectors[-4:]
    assert left(house, CLASSIFICATION) == house.classifiers[-2:]


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("models", ["kinds", "no kinds"])
def test_the_live_and_pinned_models_of_both_kinds_stay(
    tmp_path: Path, up: bool, models: str
) -> None:
    given = {} if models == "kinds" else {"models": ""}
    house = make_house(tmp_path, **given)
    old = {kind: house.models[kind][0] for kind in KINDS}
    house.pin(**old)
    with house.serve() as service:
        if not up:
            service.stop()
        done = clean(house)
    assert all(path.exists() for path in old.values()), done.record.done


def test_what_is_live_and_nowhere_pinned_stays(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    with house.serve() as service:
        old = {kind: house.models[kind][0] for kind in KINDS}
        service.reload({f"{kind}_path": str(path) for kind, path in old.items()})
        clean(house)
    for kind in KINDS:
        assert old[kind].exists()
        assert len(left(house, kind)) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"version_answer": "hangs"},
        {"version_answer": "fails"},
        {"fields": {"detection_model_path": "d"}},
    ],
)
def test_where_one_kind_is_not_said_no_model_is_deleted(
    tmp_path: Path, fault: dict[str, object]
) -> None:
    house = make_house(tmp_path)
    with house.serve(**fault):
        done = clean(house)
    assert all(left(house, kind) == house.models[kind] for kind in KINDS)
    assert any("version" in one.reason for one in done.record.skipped)


def test_a_kind_that_is_not_loaded_stops_nothing(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    with house.serve(missing={DETECTION}):
        clean(house)
    assert left(house, DETECTION) == house.detectors[-2:]


def test_a_model_of_no_kind_stays_and_is_told(tmp_path: Path) -> None:
    house = make_house(tmp_path)
    stray = house.detectors[0].rename(house.export / "experiment-of-somebody.onnx")
    told: list[str] = []
    with house.serve():
        run_maintenance(house.config, show=told.append)
    assert stray.exists()
    assert any("of no kind" in line and stray.name in line for line in told)


def test_without_kinds_there_is_one_of_every_export(tmp_path: Path) -> None:
    (kind,) = list_kinds(make_house(tmp_path, models="").config)
    assert (kind.sole, kind.pattern, kind.link, kind.pin) == (
        True,
        "*.onnx",
        "latest.onnx",
        "MODEL_PATH",
    )
