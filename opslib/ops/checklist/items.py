"""An item of the checklist: its answer, the evidence for it, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import utc_now
from opslib.core.records import Part
from opslib.ops.checklist.facts import DiskFacts, LogGroup, SpeedChange

Period = Literal["daily", "weekly", "monthly"]
State = Literal["ok", "attention", "failed", "unknown", "not applicable"]

PERIODS: tuple[Period, ...] = ("daily", "weekly", "monthly")
WINDOW_H: dict[Period, float] = {"daily": 24.0, "weekly": 7 * 24.0, "monthly": 31 * 24.0}
STATES: tuple[State, ...] = ("failed", "attention", "unknown", "ok", "not applicable")


class Answer(Part):
    """What a check found: the state, one line a fact, and the next step where it is not `ok`.

    `attention`: look at it in working hours. `failed`: something does not work, act now.
    `unknown`: it could not be checked, and the evidence says why. `not applicable`: this
    experiment has no such thing. `groups`, `disks` and `speeds` are the facts in full.
    """

    state: State
    evidence: tuple[str, ...]
    next_step: str | None = None
    groups: tuple[LogGroup, ...] = ()
    disks: tuple[DiskFacts, ...] = ()
    speeds: tuple[SpeedChange, ...] = ()


class Item(Answer):
    """An answer with the name it goes by, its title, and the period it belongs to.

    `since_utc` is the first of the runs before this one that found the same without a change
    between; null where this is the first.
    """

    name: str
    title: str
    period: Period
    took_s: float
    since_utc: str | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to look at it."""
        return self.state in ("ok", "not applicable")

    @property
    def told(self) -> tuple[str, ...]:
        """The evidence, and since when it is so where somebody has to look."""
        if self.since_utc is None or self.is_quiet:
            return self.evidence
        return (*self.evidence, f"like this since {self.since_utc[:16].replace('T', ' ')} UTC")


@dataclass(frozen=True)
class Visit:
    """What all checks of one run share: the configuration, the period, the moment, the window.

    `window_h` is how many hours back the logs are read.
    """

    config: Config
    period: Period
    window_h: float
    now: datetime = field(default_factory=utc_now)


@dataclass(frozen=True)
class Check:
    """One thing an operator looks at: how to answer it and how often."""

    name: str
    title: str
    period: Period
    answer: Callable[[Visit], Answer]


def parse_period(text: str) -> Period:
    """Return the period that `text` names.

    Raises:
        ParameterError: it names none.
    """
    for period in PERIODS:
        if text == period:
            return period
    raise ParameterError(f"period: got {text!r}, expected one of {', '.join(PERIODS)}")


def worst_state(states: Sequence[State]) -> State:
    """Return the state that decides among several, `ok` for none."""
    return min(states, key=STATES.index, default="ok")


def answer_worst(findings: Sequence[tuple[State, str]], next_steps: Sequence[str] = ()) -> Answer:
    """Return the answer of several findings, each a state and its line: the worst state, all
    lines with the worst first, the first next step."""
    ordered = sorted(findings, key=lambda one: STATES.index(one[0]))
    state = worst_state([one[0] for one in ordered])
    step = next((step for step in next_steps if step), None)
    return Answer(
        state=state,
        evidence=tuple(line for _, line in ordered),
        next_step=None if state in ("ok", "not applicable") else step,
    )
