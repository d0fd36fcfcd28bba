"""An item of the checklist: its answer, the evidence for it, and what to do about it; ages in
words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from opslib.core.clock import ASK, SKEW, parse_moment
from opslib.core.config import Config
from opslib.core.errors import ParameterError
from opslib.core.formatting import utc_now
from opslib.core.language import mark, tr, tr_many
from opslib.core.records import Part
from opslib.core.served import ServedNote

Period = Literal["daily", "weekly", "monthly"]
State = Literal["ok", "attention", "failed", "unknown", "not applicable"]

PERIODS: tuple[Period, ...] = ("daily", "weekly", "monthly")
WINDOW_H: dict[Period, float] = {"daily": 24.0, "weekly": 7 * 24.0, "monthly": 31 * 24.0}
STATES: tuple[State, ...] = ("failed", "attention", "unknown", "ok", "not applicable")
QUIET = STATES[3:]
# The states as people are shown them; in records they stay as they are.
STATE_WORDS: dict[State, str] = {
    "failed": mark("failed"),
    "attention": mark("attention"),
    "unknown": mark("unknown"),
    "ok": mark("ok"),
    "not applicable": mark("not applicable"),
}
DAY_S = 86_400.0
PERIOD_WORDS: dict[Period, str] = {
    "daily": mark("daily"),
    "weekly": mark("weekly"),
    "monthly": mark("monthly"),
}


class LogGroup(Part):
    """Error lines that say the same: how often, since when, until when, and one as it stood.
    `first_utc` and `last_utc` are null where the lines carry no time; `ignored` says that the
    configuration lets them pass."""

    source: str
    level: str
    message: str
    example: str
    count: int
    first_utc: str | None
    last_utc: str | None
    ignored: bool = False


class DiskPoint(Part):
    """How much of a disk was used at one moment."""

    at_utc: str
    used_bytes: int


class DiskFacts(Part):
    """One mounted file system: its use now, its trend, and when it will be full.
    `growth_bytes_per_day` is the median of the slopes between all pairs of points, with its 95 %
    interval; `days_until_full` follows from it, the earliest one from the upper end. They are null
    where the history is too short to tell, or where nothing grows; `trend` says which."""

    mount: str
    total_bytes: int
    used_bytes: int
    free_bytes: int
    used_pct: float
    trend: str
    growth_bytes_per_day: float | None = None
    growth_ci95_bytes_per_day: tuple[float, float] | None = None
    days_until_full: float | None = None
    days_until_full_earliest: float | None = None
    history: tuple[DiskPoint, ...] = ()


class SpeedChange(Part):
    """How much slower (above 0) or faster one row of the last benchmark is than the one before."""

    what: str
    before_ms: float
    after_ms: float
    change_pct: float
    change_ci99_pct: tuple[float, float]
    outcome: str


class Answer(Part):
    """What a check found: the state, one line a fact, and the next step where it is not `ok`.
    `attention`: look at it in working hours. `failed`: something does not work, act now. `unknown`:
    it could not be checked, and the evidence says why. `not applicable`: this experiment has no
    such thing. `groups`, `disks`, `speeds` and `models` are the facts in full."""

    state: State
    evidence: tuple[str, ...]
    next_step: str | None = None
    groups: tuple[LogGroup, ...] = ()
    disks: tuple[DiskFacts, ...] = ()
    speeds: tuple[SpeedChange, ...] = ()
    models: tuple[ServedNote, ...] = ()

    @classmethod
    def of(cls, state: State, *evidence: str, step: str | None = None) -> Self:
        """Return the answer of a state, its lines and the next step."""
        return cls(state=state, evidence=evidence, next_step=step)


class Evidence:
    """What a check finds, line by line, each with what to do about it where there is something."""

    def __init__(self) -> None:
        self.lines: list[tuple[State, str]] = []
        self.steps: list[str] = []

    @property
    def state(self) -> State:
        """The worst state of all lines, `ok` for none."""
        return min((state for state, _ in self.lines), key=STATES.index, default="ok")

    def add(self, state: State, line: str, step: str | None = None) -> None:
        """Take a line, and the next step that it asks for."""
        self.lines.append((state, line))
        self.steps += [step] if step else []

    def add_ahead(self, counted: str, names: Sequence[str]) -> None:
        """Take, where there are such, that these are dated after now and no evidence."""
        told = tell_ahead(counted, names)
        if told:
            self.add("attention", told)

    def answer(self, step: str | None = None) -> Answer:
        """Return the worst state, all lines with the worst first, and the first step, by default
        `step`."""
        ordered = sorted(self.lines, key=lambda one: STATES.index(one[0]))
        quiet = self.state in QUIET
        next_step = None if quiet else next(iter(self.steps), step)
        return Answer.of(self.state, *(line for _, line in ordered), step=next_step)


class Item(Answer):
    """An answer with the name it goes by, its title, and the period it belongs to. `since_utc` is
    the first of the runs before this one that found the same without a change between; null where
    this is the first."""

    name: str
    title: str
    period: Period
    took_s: float
    since_utc: str | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to look at it."""
        return self.state in QUIET

    @property
    def told(self) -> tuple[str, ...]:
        """The evidence, and since when it is so where somebody has to look."""
        if self.since_utc is None or self.is_quiet:
            return self.evidence
        since = self.since_utc[:16].replace("T", " ")
        return (*self.evidence, tr("like this since {since} UTC", since=since))

    @property
    def state_word(self) -> str:
        """The state as people are shown it."""
        return tr(STATE_WORDS[self.state])

    @property
    def shown_title(self) -> str:
        """The title as people are shown it."""
        return tr(self.title)


@dataclass(frozen=True)
class Visit:
    """What all checks of one run share: the configuration, the period, the moment, the window.
    `window_h` is how many hours back the logs are read."""

    config: Config
    period: Period
    window_h: float
    now: datetime = field(default_factory=utc_now)

    def not_set_up(self, line: str, step: str) -> Answer:
        """Return that something is not there, which the demo alone does without."""
        told = tr("not set up: {line}", line=line)
        if self.config.is_demo:
            return Answer.of("not applicable", told)
        return Answer.of("attention", told, step=step)


@dataclass(frozen=True)
class Check:
    """One thing an operator looks at: how to answer it and how often."""

    name: str
    title: str
    period: Period
    answer: Callable[[Visit], Answer]


def parse_period(text: str) -> Period:
    """Return the period that `text` names. Raises ParameterError: it names none."""
    for period in PERIODS:
        if text == period:
            return period
    raise ParameterError(f"period: got {text!r}, expected one of {', '.join(PERIODS)}")


def age_days(moment_utc: str, now: datetime) -> float | None:
    """Return the days from `moment_utc` (ISO) to `now`, or None where it is no moment."""
    moment = parse_moment(moment_utc)
    return None if moment is None else (now - moment).total_seconds() / DAY_S


def named_moment(path: Path) -> datetime | None:
    """Return the moment that the name of a record's file says, or None where it says none."""
    named = re.search(r"\d{8}-\d{6}", path.name)
    return parse_moment(named[0]) if named else None


def describe_age(days: float | None) -> str:
    """Return an age in the unit that matters: `3 hours ago`, `12 days ago`."""
    if days is None:
        return tr("at an unknown time")
    if days * DAY_S < -SKEW.total_seconds():
        span = describe_days(-days)
        return tr("dated {span} in the future: {ask}", span=span, ask=tr(ASK))
    return tr("{span} ago", span=describe_days(max(days, 0.0)))


def tell_ahead(counted: str, names: Sequence[str]) -> str | None:
    """Return that these, `counted` in words, are dated after now and no evidence of anything, or
    None for none."""
    if not names:
        return None
    return tr(
        "passed over, dated after now: {counted}, {name}: {ask}",
        counted=counted,
        name=names[0],
        ask=tr(ASK),
    )


def describe_days(days: float) -> str:
    """Return a number of days in the unit that matters: `40 minutes`, `3 hours`, `12 days`."""
    if days < 1 / 24:
        return tr_many("{count:,} minute", "{count:,} minutes", round(days * 24 * 60))
    if days < 2:
        return tr_many("{count:,} hour", "{count:,} hours", round(days * 24))
    return tr_many("{count:,} day", "{count:,} days", round(days))
