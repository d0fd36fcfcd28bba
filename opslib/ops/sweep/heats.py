"""Arms raced in heats and the finalists measured again, whatever an arm is.

Arms race in heats, so that only so many are loaded at a time; the default runs in each heat, and
speeds against it compare across heats.

Everything ends in trials; an arm whose trial is already kept is not measured again. One that stops,
whenever it does, is refused with the reason and the others go on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from opslib.core.config import Config
from opslib.core.errors import GateFailedError, OpsError
from opslib.ops.sweep.finals import Finals, speedup_interval
from opslib.ops.sweep.trials import Trial, TrialBook
from opslib.timing.racing import Race, RaceRules, run_race
from opslib.timing.rounds import Deadline, Visit
from opslib.timing.station import RacerError

SHOWN = 3

Report = Callable[[str], None]


class Options(Protocol):
    """What an arm is tried with."""

    def changes(self) -> Mapping[str, object]:
        """Return the options that differ from the default, by name."""


class Contender(Protocol):
    """What differs from all others and is measured: `row` is the number of the row it is reported
    in, `key` says whether a kept trial is its own, `label` tells it from the others."""

    @property
    def row(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def options(self) -> Options: ...


A = TypeVar("A", bound=Contender)


@dataclass(frozen=True)
class Track(ABC, Generic[A]):
    """Where arms are loaded, checked and visited, and what every race of a sweep shares."""

    config: Config
    book: TrialBook
    rng: np.random.Generator
    report: Report

    @property
    @abstractmethod
    def most_loaded(self) -> int:
        """How many arms may be loaded at a time, the default among them."""

    @property
    @abstractmethod
    def margin_pct(self) -> float:
        """How close to the fastest counts as tied."""

    @property
    def race_share(self) -> float:
        """Which part of the time is for the race; the rest is for the finals."""
        return 0.6

    @abstractmethod
    def where(self, arm: A) -> str:
        """Return where an arm races, as progress tells it: ` at batch 8`."""

    @abstractmethod
    def prepare(self, default: A) -> None:
        """Find out what the answers must be."""

    @abstractmethod
    def load(self, arm: A) -> Trial:
        """Load an arm and hold its answers against what they must be; a refused one is gone."""

    def load_all(self, arms: Sequence[A]) -> list[Trial]:
        """Load the arms of a heat; see `load`."""
        return [self.load(arm) for arm in arms]

    @abstractmethod
    def racer(self, arm: A) -> Visit:
        """Return the visits of a loaded arm; one that fails raises `RacerError` with its row."""

    @abstractmethod
    def unload(self, arm: A) -> None:
        """Free an arm that dropped out or is done; one that is gone is only forgotten."""

    def unload_all(self, arms: Sequence[A]) -> None:
        """Free the arms of a heat; see `unload`."""
        for arm in arms:
            self.unload(arm)

    @abstractmethod
    def measure_finalists(self, arms: Sequence[A], deadline: Deadline) -> Finals:
        """Return the rounds of arms in fresh processes; one that fails raises `RacerError` with its
        place among them."""


def run_heats(track: Track[A], arms: Sequence[A], default: A, budget_s: float) -> None:
    """Race the arms and measure the finalists; all is kept as trials. Raises GateFailedError: the
    default itself does not answer as it must."""
    deadline = Deadline(budget_s)
    _race_arms(track, arms, default, Deadline(track.race_share * budget_s))
    finalists = choose_finalists(track, arms, default)
    if all(track.book.final(arm.key) for arm in finalists):
        for arm in finalists:
            track.book.count_found(f"{arm.key} final")
        return
    finals: Finals | None = None
    while finals is None:
        finalists = choose_finalists(track, arms, default)
        labels = list_labels(finalists)
        track.report(f"measuring the finalists{track.where(default)}: {labels}")
        try:
            left = Deadline(max(0.0, deadline.left_s))
            finals = track.measure_finalists(finalists, left)
        except RacerError as error:
            _refuse(track, finalists[error.number], default, error)
    track.book.forget_finals(arm.key for arm in arms)
    default_ms = finals.times_ms([arm.row for arm in finalists].index(default.row))
    for index, arm in enumerate(finalists):
        raced = track.book.race(arm.key) or Trial(key=arm.key, kind="survived")
        found = {"times_ms": finals.times_ms(index), "default_ms": default_ms}
        track.book.save(raced.ended("final", run_delay_pct=finals.run_delay_pct, **found))


def choose_finalists(track: Track[A], arms: Sequence[A], default: A) -> list[A]:
    """Return who goes to the finals: the default, the fastest, the simplest, then by speed."""

    def speed(arm: A) -> float:
        trial = track.book.race(arm.key)
        return speedup_interval(trial.default_ms, trial.times_ms)[0] if trial else 0.0

    survived = {one.key for one in track.book.races if one.kind == "survived"}
    alive = [arm for arm in arms if arm.key in survived and arm is not default]
    fastest = sorted(alive, key=speed, reverse=True)
    simplest = sorted(alive, key=lambda arm: (len(arm.options.changes()), -speed(arm)))
    wanted = [default, *fastest[:1], *simplest[:1], *fastest]
    unique = list({arm.row: arm for arm in wanted}.values())
    return unique[: track.config.sweep.finalists]


def list_labels(arms: Sequence[Contender]) -> str:
    """Return the arms' labels in a row."""
    return " | ".join(arm.label for arm in arms)


def _refuse(track: Track[A], arm: A, default: A, error: OpsError) -> None:
    """Keep that an arm which was checked stopped later on; without the default nothing is left.
    Raises GateFailedError: it is the default."""
    if arm.row == default.row:
        raise GateFailedError(f"it stopped while it was timed: {error}") from error
    checked = track.book.race(arm.key) or Trial(key=arm.key, kind="refused")
    reason = f"it stopped while it was timed: {error}"
    track.book.save(checked.ended("refused", reason=reason, times_ms=(), default_ms=()))


def _race_arms(track: Track[A], arms: Sequence[A], default: A, deadline: Deadline) -> None:
    waiting = [arm for arm in arms if arm is not default and track.book.race(arm.key) is None]
    for arm in arms:
        track.book.count_found(arm.key)
    if not waiting and track.book.race(default.key):
        return
    track.report(f"checking answers{track.where(default)}: {len(waiting) + 1} settings")
    track.prepare(default)
    trials: dict[int, Trial] = {}
    size = track.most_loaded
    heats = [waiting[start : start + size - 1] for start in range(0, len(waiting), size - 1)]
    for heat in heats or [[]]:
        coming = heat if trials else [default, *heat]
        trials |= dict(zip((arm.row for arm in coming), track.load_all(coming), strict=True))
        if trials[default.row].kind == "refused":
            raise GateFailedError(trials[default.row].reason or "the default does not answer alike")
        started = [default]
        for arm in heat:
            if trials[arm.row].kind == "refused":
                track.book.save(trials[arm.row])
            else:
                started.append(arm)
        share_s = deadline.left_s / len(heats) if heats else deadline.left_s
        _run_heat(track, started, trials, Deadline(max(0.0, share_s)))
        track.unload_all(started[1:])
    track.unload(default)


def _run_heat(
    track: Track[A], arms: Sequence[A], trials: dict[int, Trial], deadline: Deadline
) -> None:
    """Race these arms, the default first; one that stops is refused and the others start anew: they
    may lie in a new process then, and what was timed in the old one does not pair with it."""
    racing = list(arms)
    while racing:
        try:
            _race_once(track, racing, trials, deadline)
        except RacerError as error:
            lost = next(arm for arm in racing if arm.row == error.number)
            _refuse(track, lost, arms[0], error)
            left = [arm for arm in racing[1:] if track.book.race(arm.key) is None]
            for arm in racing[1:]:
                if arm not in left:
                    track.unload(arm)
            racing = [arms[0], *left]
        else:
            return


def _race_once(
    track: Track[A], arms: Sequence[A], trials: dict[int, Trial], deadline: Deadline
) -> None:
    """Race these arms, the default first; keep who drops out at once, the others at the end."""
    kept: set[int] = set()

    def keep(race: Race, index: int) -> None:
        racer, default_ms = race.racers[index], race.racers[0].times_ms
        kept.add(index)
        track.book.save(
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
                track.unload(arms[index])
        alive = race.alive
        track.report(
            f"racing{track.where(arms[0])}: round {race.rounds}, "
            f"{len(alive)} of {len(arms)} in the race, ahead: "
            f"{list_labels([arms[index] for index in alive[:SHOWN]])}"
        )

    race = run_race(
        [track.racer(arm) for arm in arms],
        incumbent=0,
        deadline=deadline,
        rng=track.rng,
        rules=RaceRules(enough=track.config.sweep.finalists, margin_pct=track.margin_pct),
        on_round=on_round,
    )
    for index in range(len(arms)):
        if index not in kept:
            keep(race, index)
