"""Racing: all run a little, the clearly slower drop out, the few that are left are measured well.

Every round visits whoever is still in the race once, in random order. For three rounds an arm
leaves when it was more than 22 % slower than the leader each time; from then on when the 99 %
interval of its paired log ratios lies below the leader's. The incumbent never leaves, so that
every figure can be given against it. The winner of a race is lucky too: who is left must be
measured again before anything is said about it.

The interval is Student's t: a bootstrap of four or five values reshuffles those and is far too
narrow to drop an arm on.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from opslib.timing.rounds import Deadline, RoundPlan, Visit, run_rounds
from opslib.timing.stats import student_interval, trimmed_mean

FASTEST_RUN_MS, SLOW_RUN_MS, SLOWEST_RUN_MS = 1.0, 20.0, 100.0


@dataclass(frozen=True)
class RaceRules:
    """When an arm leaves and when the race is over.

    `cut_pct`: slower than the leader by more than this in every early round: out. `cut_rounds`: how
    many early rounds there are. `confidence`: of the interval that decides later. `hopeless`: so
    many times slower than the incumbent while warming up: not started. `max_rounds`: the race ends
    here at the latest. `enough`: the race ends early once this few are left, after `min_rounds`.
    `margin_pct`: it also ends once all that are left are this close to the leader.
    """

    cut_pct: float = 22.0
    cut_rounds: int = 3
    confidence: float = 0.99
    hopeless: float = 5.0
    max_rounds: int = 20
    min_rounds: int = 6
    enough: int = 4
    margin_pct: float = 2.0


@dataclass
class Racer:
    """One arm under way: its median time (ms) in each round, and when it left, if it did."""

    times_ms: list[float] = field(default_factory=list)
    pruned_at: int | None = None

    @property
    def racing(self) -> bool:
        """Whether it is still in the race."""
        return self.pruned_at is None


@dataclass
class Race:
    """A race under way or over; `racers` stand in the order of the visits."""

    racers: list[Racer]
    incumbent: int
    rounds: int = 0
    run_delays_pct: list[float] = field(default_factory=list)

    def log_ratios(self, baseline: int, candidate: int) -> list[float]:
        """Logs of baseline time over candidate time, for the rounds that both ran."""
        pairs = zip(self.racers[baseline].times_ms, self.racers[candidate].times_ms, strict=False)
        return [math.log(one / other) for one, other in pairs]

    def speed(self, index: int) -> float:
        """Log of the arm's speed against the incumbent's."""
        return trimmed_mean(self.log_ratios(self.incumbent, index))

    @property
    def alive(self) -> list[int]:
        """Who is still racing, fastest first."""
        racing = [index for index, racer in enumerate(self.racers) if racer.racing]
        return sorted(racing, key=self.speed, reverse=True)

    @property
    def run_delay_pct(self) -> float | None:
        """Median run delay of the rounds, where the host tells it."""
        return float(np.median(self.run_delays_pct)) if self.run_delays_pct else None


OnRound = Callable[[Race], None]


def run_race(
    visits: Sequence[Visit],
    *,
    incumbent: int,
    deadline: Deadline,
    rng: np.random.Generator,
    rules: RaceRules | None = None,
    on_round: OnRound = lambda _race: None,
) -> Race:
    """Return the race once it is over: by rounds, by time, or because too few are left to cut.
    `visits`: one for each arm; its first visits warm it up and are not counted. `incumbent`: the
    arm that stays in whatever happens. `on_round`: told after every round, the race as it
    stands."""
    rules = rules or RaceRules()
    race = Race([Racer() for _ in visits], incumbent)
    _warm_up(race, visits, rules)
    while race.rounds < rules.max_rounds and (race.rounds == 0 or deadline.left_s > 0):
        _run_round(race, visits, rng, deadline)
        _prune(race, rules)
        on_round(race)
        if _is_over(race, rules):
            break
    return race


def runs_for(run_ms: float) -> int:
    """Return how many timed runs a visit makes of a call that takes `run_ms`."""
    if run_ms < FASTEST_RUN_MS:
        return 10
    if run_ms < SLOW_RUN_MS:
        return 5
    return 3 if run_ms < SLOWEST_RUN_MS else 1


def _warm_up(race: Race, visits: Sequence[Visit], rules: RaceRules) -> None:
    """Run every arm once or twice; who is hopelessly slow both times does not start. A processor
    beside a card would else spend the whole budget on being slow."""
    first_ms = [float(np.median(visit(1).times_ms)) for visit in visits]
    limit_ms = rules.hopeless * first_ms[race.incumbent]
    for index, visit in enumerate(visits):
        second_ms = float(np.median(visit(1).times_ms))
        if index != race.incumbent and min(first_ms[index], second_ms) > limit_ms:
            race.racers[index].times_ms.append(min(first_ms[index], second_ms))
            race.racers[index].pruned_at = 1


def _run_round(
    race: Race, visits: Sequence[Visit], rng: np.random.Generator, deadline: Deadline
) -> None:
    racing = [index for index, racer in enumerate(race.racers) if racer.racing]
    known = race.racers[race.incumbent].times_ms
    runs = runs_for(known[-1]) if known else 3
    seen = run_rounds([visits[index] for index in racing], RoundPlan(1, runs), rng, deadline)
    for index, time_ms in zip(racing, seen.medians_ms[0], strict=True):
        race.racers[index].times_ms.append(time_ms)
    if seen.run_delay_pct is not None:
        race.run_delays_pct.append(seen.run_delay_pct)
    race.rounds += 1


def _prune(race: Race, rules: RaceRules) -> None:
    leader = race.alive[0]
    for index in race.alive:
        if index in (leader, race.incumbent):
            continue
        behind = race.log_ratios(leader, index)
        if race.rounds <= rules.cut_rounds:
            out = race.rounds > 1 and max(behind) < -math.log1p(rules.cut_pct / 100)
        else:
            out = student_interval(behind, rules.confidence).high < 0
        if out:
            race.racers[index].pruned_at = race.rounds


def _is_over(race: Race, rules: RaceRules) -> bool:
    if race.rounds < rules.min_rounds:
        return False
    alive = race.alive
    if len(alive) <= rules.enough:
        return True
    margin = math.log1p(rules.margin_pct / 100)
    behind = (
        student_interval(race.log_ratios(alive[0], index), rules.confidence) for index in alive[1:]
    )
    return all(-margin <= one.low and one.high <= margin for one in behind)
