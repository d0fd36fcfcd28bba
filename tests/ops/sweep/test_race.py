"""Heats: on a card only so many sessions lie in memory, and the default runs in each.

A setting that ends its process, at whatever moment, costs its own row and no other."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from opslib.core.config import Config, load_config
from opslib.core.errors import GateFailedError, UnavailableError
from opslib.inference.engine import EngineFacts, EngineRequest
from opslib.ops.sweep import race as sweep_race
from opslib.ops.sweep.arms import Arm
from opslib.ops.sweep.finals import Finals
from opslib.ops.sweep.heats import choose_finalists, run_heats
from opslib.ops.sweep.race import HEAT_ON_CARD, Course
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.trials import TrialBook
from opslib.timing.rounds import Visit, VisitTimes
from opslib.timing.station import RacerError, Station, Workload
from opslib.timing.workers import MeasureError
from tests.models import write_config

pytestmark = pytest.mark.alone


class FakeStation:
    """A station on a card: row N takes N milliseconds, row 13 runs out of memory.

    `deadly` tells after how many visits a row ends the process.
    """

    def __init__(self) -> None:
        self.deadly: dict[int, int] = {}
        self.loaded: set[int] = set()
        self.most = 0

    def load(
        self, request: EngineRequest, work: Workload, number: int, *, try_out: bool
    ) -> EngineFacts:
        if number == 13:
            raise UnavailableError("CUDA ran out of memory")
        self.loaded.add(number)
        self.most = max(self.most, len(self.loaded))
        return EngineFacts("onnx", "CUDA", 1, 3, (None, 3, 8, 8), "float32")

    def answer(self, count: int, number: int) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[np.arange(count) % 3]

    def racer(self, number: int) -> Visit:
        def visit(runs: int) -> VisitTimes:
            assert number in self.loaded
            if number in self.deadly:
                self.deadly[number] -= 1
                if self.deadly[number] < 0:
                    self.loaded.discard(number)
                    raise RacerError(number, MeasureError("ended by SIGABRT"))
            return VisitTimes((float(number),) * runs, 0.001, 0.0)

        return visit

    def unload(self, number: int) -> None:
        self.loaded.discard(number)


def make_arm(row: int) -> Arm:
    cuda: dict[str, str | int] = {} if row == 10 else {"cudnn_conv_use_max_workspace": 1, "x": row}
    options = SweepOptions() if row == 10 else SweepOptions(cuda=cuda)
    return Arm(row, 1, options, EngineRequest("onnx", Path("m")), None, f"key {row}")


@pytest.fixture
def course(tmp_path: Path) -> tuple[Course, FakeStation]:
    config: Config = load_config(write_config(tmp_path), {})
    station = FakeStation()
    return (
        Course(
            config=config,
            work=Workload((), 8, "none"),
            station=cast(Station, station),
            book=TrialBook(tmp_path / "trials.jsonl"),
            rng=np.random.default_rng(0),
            report=lambda _what: None,
            on_card=True,
        ),
        station,
    )


def finish(requests: list[Any], *_: object, **__: object) -> Finals:
    return Finals(((1.0,) * len(requests),) * 10, 0.0)


def test_heats_bound_what_lies_in_memory_and_every_arm_gets_a_trial(
    course: tuple[Course, FakeStation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_race, "measure_finalists", finish)
    race, station = course
    arms = [make_arm(row) for row in range(1, 21)]
    run_heats(race, arms, arms[9], 60.0)
    assert station.most == HEAT_ON_CARD
    assert station.loaded == set()
    trials = {arm.row: race.book.race(arm.key) for arm in arms}
    assert all(trials.values())
    assert trials[13] is not None
    assert (trials[13].kind, trials[13].reason) == ("refused", "CUDA ran out of memory")


def test_speeds_against_the_default_compare_across_heats(
    course: tuple[Course, FakeStation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_race, "measure_finalists", finish)
    race, _ = course
    arms = [make_arm(row) for row in range(20, 0, -1)]
    run_heats(race, arms, arms[10], 60.0)
    finalists = [arm.row for arm in choose_finalists(race, arms, arms[10])]
    assert finalists[:2] == [10, 1]
    assert len(finalists) <= race.config.sweep.finalists


def test_a_setting_that_ends_the_process_in_the_race_is_dropped_and_the_race_goes_on(
    course: tuple[Course, FakeStation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_race, "measure_finalists", finish)
    race, station = course
    station.deadly = {2: 0, 5: 3}
    arms = [make_arm(row) for row in range(1, 13)]
    run_heats(race, arms, arms[9], 60.0)
    trials = {arm.row: race.book.race(arm.key) for arm in arms}
    assert all(trials.values())
    for row, trial in trials.items():
        assert trial is not None
        assert (trial.kind == "refused") == (row in (2, 5))
        assert bool(trial.times_ms) == (row not in (2, 5))
    assert trials[2] is not None
    assert trials[2].reason == "it stopped while it was timed: ended by SIGABRT"
    assert station.loaded == set()


def test_a_finalist_that_ends_its_process_is_refused_and_the_others_are_measured(
    course: tuple[Course, FakeStation], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def die_once(requests: list[Any], *_: object, **__: object) -> Finals:
        sizes.append(len(requests))
        if len(sizes) == 1:
            raise RacerError(1, MeasureError("ended by SIGKILL"))
        return finish(requests)

    monkeypatch.setattr(sweep_race, "measure_finalists", die_once)
    race, _ = course
    arms = [make_arm(row) for row in (1, 2, 10)]
    run_heats(race, arms, arms[2], 60.0)
    assert sizes == [2, 1]
    trials = {arm.row: race.book.race(arm.key) for arm in arms}
    assert [row for row, one in trials.items() if one and one.kind == "refused"] == [1]
    assert race.book.final(arms[0].key) is None
    assert race.book.final(arms[2].key) is not None


def test_without_the_default_nothing_is_raced(course: tuple[Course, FakeStation]) -> None:
    race, station = course
    station.deadly = {10: 1}
    arms = [make_arm(row) for row in (1, 10)]
    with pytest.raises(GateFailedError, match="ended by SIGABRT"):
        run_heats(race, arms, arms[1], 60.0)
