"""One batch size of a sweep: answers checked, raced, and the finalists measured again.

Settings race in heats, so that only so many sessions lie in memory at a time; the default runs in
each heat, and speeds against it compare across heats.

Everything ends in trials; a session whose trial is already kept is not measured again. A setting
that ends its process, whenever it does, is refused with the reason and the others go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from opslib.core.config import Config
from opslib.core.errors import GateFailedError, OpsError
from opslib.inference.engine import EngineRequest
from opslib.ops.sweep.arms import Arm, arithmetic_of, check_candidate
from opslib.ops.sweep.finals import Finals, measure_finalists, speedup_interval
from opslib.ops.sweep.record import SweepOptions
from opslib.ops.sweep.space import uses_tf32
from opslib.ops.sweep.trials import Trial, TrialBook
from opslib.timing.racing import Race, RaceRules, run_race
from opslib.timing.rounds import Deadline
from opslib.timing.station import RacerError, Station, Workload

REFERENCE = 0
RACE_SHARE = 0.6
HEAT_ON_CPU, HEAT_ON_CARD = 24, 8
SHOWN = 3

Report = Callable[[str], None]


@dataclass(frozen=True)
class Course:
    """What every race of a sweep shares."""

    config: Config
    work: Workload
    station: Station
    book: TrialBook
    rng: np.random.Generator
    report: Report
    on_card: bool


def run_batch(course: Course, arms: Sequence[Arm], default: Arm, budget_s: float) -> None:
    """Race the arms of one batch size and measure the finalists; all is kept as trials. Raises
    GateFailedError: the default itself does not answer like the model as written."""
    deadline = Deadline(budget_s)
    _race_arms(course, arms, default, Deadline(RACE_SHARE * budget_s))
    finalists = choose_finalists(course, arms, default)
    if all(course.book.final(arm.key) for arm in finalists):
        for arm in finalists:
            course.book.count_found(f"{arm.key} final")
        return
    finals: Finals | None = None
    while finals is None:
        finalists = choose_finalists(course, arms, default)
        labels = list_labels(finalists)
        course.report(f"measuring the finalists at batch {default.batch_size}: {labels}")
        try:
            finals = measure_finalists(
                [arm.request for arm in finalists],
                course.work,
                deadline=Deadline(max(0.0, deadline.left_s)),
                rng=course.rng,
                margin_pct=course.config.sweep.margin_pct,
            )
        except RacerError as error:
            _refuse(course, finalists[error.number], default, error)
    course.book.forget_finals(arm.key for arm in arms)
    default_ms = finals.times_ms([arm.row for arm in finalists].index(default.row))
    for index, arm in enumerate(finalists):
        raced = course.book.race(arm.key) or Trial(key=arm.key, kind="survived")
        found = {"times_ms": finals.times_ms(index), "default_ms": default_ms}
        course.book.save(raced.ended("final", run_delay_pct=finals.run_delay_pct, **found))


def choose_finalists(course: Course, arms: Sequence[Arm], default: Arm) -> list[Arm]:
    """Return who goes to the finals: the default, the fastest, the simplest, then by speed."""

    def speed(arm: Arm) -> float:
        trial = course.book.race(arm.key)
        return speedup_interval(trial.default_ms, trial.times_ms)[0] if trial else 0.0

    survived = {one.key for one in course.book.races if one.kind == "survived"}
    alive = [arm for arm in arms if arm.key in survived and arm is not default]
    fastest = sorted(alive, key=speed, reverse=True)
    simplest = sorted(alive, key=lambda arm: (len(arm.options.changes()), -speed(arm)))
    wanted = [default, *fastest[:1], *simplest[:1], *fastest]
    unique = list({arm.row: arm for arm in wanted}.values())
    return unique[: course.config.sweep.finalists]


def list_labels(arms: Sequence[Arm]) -> str:
    """Return the arms' labels in a row."""
    return " | ".join(arm.label for arm in arms)


def _refuse(course: Course, arm: Arm, default: Arm, error: OpsError) -> None:
    """Keep that an arm which was checked stopped later on; without the default nothing is left.
    Raises GateFailedError: it is the default."""
    if arm.row == default.row:
        raise GateFailedError(f"it stopped while it was timed: {error}") from error
    checked = course.book.race(arm.key) or Trial(key=arm.key, kind="refused")
    reason = f"it stopped while it was timed: {error}"
    course.book.save(checked.ended("refused", reason=reason, times_ms=(), default_ms=()))


def _race_arms(course: Course, arms: Sequence[Arm], default: Arm, deadline: Deadline) -> None:
    waiting = [arm for arm in arms if arm is not default and course.book.race(arm.key) is None]
    for arm in arms:
        course.book.count_found(arm.key)
    if not waiting and course.book.race(default.key):
        return
    course.report(f"checking answers at batch {default.batch_size}: {len(waiting) + 1} settings")
    reference = _answer_as_written(course, default.request)
    trials = {default.row: _load_checked(course, default, reference)}
    if trials[default.row].kind == "refused":
        raise GateFailedError(trials[default.row].reason or "the default does not answer alike")
    size = HEAT_ON_CARD if course.on_card else HEAT_ON_CPU
    heats = [waiting[start : start + size - 1] for start in range(0, len(waiting), size - 1)]
    for heat in heats or [[]]:
        started = [default]
        for arm in heat:
            trials[arm.row] = _load_checked(course, arm, reference)
            if trials[arm.row].kind == "refused":
                course.book.save(trials[arm.row])
            else:
                started.append(arm)
        share_s = deadline.left_s / len(heats) if heats else deadline.left_s
        _run_heat(course, started, trials, Deadline(max(0.0, share_s)))
        for arm in started[1:]:
            course.station.unload(arm.row)
    course.station.unload(default.row)


def _run_heat(
    course: Course, arms: Sequence[Arm], trials: dict[int, Trial], deadline: Deadline
) -> None:
    """Race these arms, the default first; one that stops is refused and the others start anew. They
    lie in a new process then, and what was timed in the old one does not pair with it."""
    racing = list(arms)
    while racing:
        try:
            _race_once(course, racing, trials, deadline)
        except RacerError as error:
            lost = next(arm for arm in racing if arm.row == error.number)
            _refuse(course, lost, arms[0], error)
            left = [arm for arm in racing[1:] if course.book.race(arm.key) is None]
            for arm in racing[1:]:
                if arm not in left:
                    course.station.unload(arm.row)
            racing = [arms[0], *left]
        else:
            return


def _race_once(
    course: Course, arms: Sequence[Arm], trials: dict[int, Trial], deadline: Deadline
) -> None:
    """Race these arms, the default first; keep who drops out at once, the others at the end."""
    kept: set[int] = set()

    def keep(race: Race, index: int) -> None:
        racer, default_ms = race.racers[index], race.racers[0].times_ms
        kept.add(index)
        course.book.save(
            trials[arms[index].row].ended(
                "survived" if racer.racing else "pruned",
                pruned_at=racer.pruned_at,
                run_delay_pct=race.run_delay_pct,
                times_ms=tuple(racer.times_ms),
                default_ms=tuple(default_ms[: len(racer.times_ms)]),
            )
        )

    def on_round(race: Race) -> None:
        for index, racer in enumerate(race.racers):
            if not racer.racing and index not in kept:
                keep(race, index)
        alive = race.alive
        course.report(
            f"racing at batch {arms[0].batch_size}: round {race.rounds}, "
            f"{len(alive)} of {len(arms)} in the race, ahead: "
            f"{list_labels([arms[index] for index in alive[:SHOWN]])}"
        )

    race = run_race(
        [course.station.racer(arm.row) for arm in arms],
        incumbent=0,
        deadline=deadline,
        rng=course.rng,
        rules=RaceRules(
            enough=course.config.sweep.finalists, margin_pct=course.config.sweep.margin_pct
        ),
        on_round=on_round,
    )
    for index in range(len(arms)):
        if index not in kept:
            keep(race, index)


def _answer_as_written(course: Course, request: EngineRequest) -> NDArray[np.float32]:
    """Answer with the unoptimized graph on the CPU, the nearest to the model as written."""
    plain = SweepOptions(providers=("CPU",), graph_optimization_level="DISABLE_ALL")
    as_written = replace(request, providers=plain.providers, settings=plain.settings())
    course.station.load(as_written, course.work, REFERENCE, try_out=False)
    answer = course.station.answer(course.config.sweep.parity_images, REFERENCE)
    course.station.unload(REFERENCE)
    return answer


def _load_checked(course: Course, arm: Arm, reference: NDArray[np.float32]) -> Trial:
    """Load an arm and hold its answers against the reference; a refused one is unloaded."""
    trial = Trial(key=arm.key, kind="refused")
    try:
        facts = course.station.load(arm.request, course.work, arm.row, try_out=False)
        trial = trial.ended("refused", provider=facts.provider, note=facts.note)
        answer = course.station.answer(len(reference), arm.row)
    except OpsError as error:
        course.station.unload(arm.row)
        return trial.ended("refused", reason=str(error))
    tf32 = uses_tf32(arm.options, facts.provider)
    arithmetic = arithmetic_of(facts.input_dtype, tf32=tf32)
    difference, reason = check_candidate(reference, answer, course.config.parity, arithmetic)
    if reason is None:
        return trial.ended("survived", max_abs_diff=difference)
    course.station.unload(arm.row)
    reason = f"it does not answer alike: {reason}"
    return trial.ended("refused", max_abs_diff=difference, reason=reason)
