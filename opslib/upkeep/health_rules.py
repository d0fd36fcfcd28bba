"""When a restart, an alert or a recovery notice is due: one pure function of state and checks.

The same rules stand in `scripts/health_watch.ps1`; both are held against `tests/cases/health.json`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from opslib.core.errors import ExitCode
from opslib.core.records import Part, Record
from opslib.core.upkeep_sections import HealthSection

HOUR_S = 3600
MINUTE_S = 60

ActionName = Literal["restart", "alert", "recovery", "alert-degraded", "recovery-degraded"]
Layer = Literal["app", "tunnel", "both"]
Reason = Literal["", "failures", "still-failing", "no-command", "other-layer", "limit"]


@dataclass(frozen=True)
class Checks:
    """Which checks answered; `external` is None where no external address is watched.

    `degraded` is whether the app says that it serves another model than it should; None where it
    did not answer anywhere.
    """

    internal: bool
    external: bool | None
    degraded: bool | None = False

    @property
    def layer(self) -> Layer | None:
        """What failed: the app, the tunnel before it, or both; None where all watched answered."""
        if self.internal:
            return "tunnel" if self.external is False else None
        return "both" if self.external is False else "app"


class Incident(Part):
    """A time of trouble that reached the limit: since when, where, and whether it was told."""

    since_s: int
    layer: Layer
    alerted: bool = False


class Degradation(Part):
    """A time in which another model was served than should be: runs that saw it in a row, since
    when, and whether it was told. It is no failure: no restart mends it."""

    runs: int = 0
    good_runs: int = 0
    since_s: int | None = None
    alerted: bool = False


class HealthState(Record):
    """What one run leaves to the next; times are seconds since 1970."""

    schema_name = "health-state"

    internal_failures: int = 0
    external_failures: int = 0
    good_runs: int = 0
    failing_since_s: int | None = None
    restarts_at_s: tuple[int, ...] = ()
    incident: Incident | None = None
    degradation: Degradation = Degradation()


@dataclass(frozen=True)
class Decision:
    """What follows from a run: the next state, what to do now and why, and the exit code.

    After a `restart` the checks are asked again and `decide_after_restart` has the last word.
    """

    state: HealthState
    actions: tuple[ActionName, ...] = ()
    reason: Reason = ""
    exit_code: ExitCode = ExitCode.PASS


def decide(state: HealthState, checks: Checks, limits: HealthSection, now_s: int) -> Decision:
    """Return what a run with these `checks` leads to."""
    degradation, told = _follow_degradation(state.degradation, checks.degraded, limits, now_s)
    state = state.model_copy(update={"degradation": degradation})
    return _add(_decide_outage(state, checks, limits, now_s), told)


def decide_forgetful(checks: Checks, limits: HealthSection, now_s: int) -> Decision:
    """Return what a run without any memory leads to: one failure has to do, and something is done
    in the first minute of an hour alone, so that no restart and no alert comes twice in one."""
    limits = limits.model_copy(update={"failures": 1})
    decision = decide(HealthState(), checks, limits, now_s)
    if hour_begins(now_s) or not decision.actions:
        return decision
    return replace(decision, actions=(), exit_code=ExitCode.GATE_FAILED)


def decide_after_restart(state: HealthState, checks: Checks, limits: HealthSection) -> Decision:
    """Return what follows when the `checks` were asked again after a restart."""
    if checks.layer is None:
        return _add(_end_if_stable(state, limits))
    return _alert_once(state, _locate(state.incident, checks.layer), "still-failing")


def hour_begins(now_s: int) -> bool:
    """Whether it is the first minute of an hour."""
    return now_s % HOUR_S < MINUTE_S


def _follow_degradation(
    before: Degradation, degraded: bool | None, limits: HealthSection, now_s: int
) -> tuple[Degradation, tuple[ActionName, ...]]:
    """What is known of a degraded service after a run, and whether people are told: after as many
    runs as a failure takes, once; over after as many good ones. A run in which nobody answered says
    nothing about it."""
    if degraded is None:
        return before, ()
    if degraded:
        runs = before.runs + 1
        due = runs >= limits.failures and not before.alerted
        since_s = now_s if before.since_s is None else before.since_s
        after = Degradation(runs=runs, since_s=since_s, alerted=before.alerted or due)
        return after, ("alert-degraded",) if due else ()
    good_runs = before.good_runs + 1
    if before.since_s is None or good_runs >= limits.successes:
        return Degradation(), ("recovery-degraded",) if before.alerted else ()
    return before.model_copy(update={"runs": 0, "good_runs": good_runs}), ()


def _add(decision: Decision, told: tuple[ActionName, ...] = ()) -> Decision:
    """The decision on an outage, with what is told of a degraded service and its exit code."""
    seen = decision.state.degradation
    exit_code = ExitCode.GATE_FAILED if seen.alerted and seen.runs else decision.exit_code
    return replace(decision, actions=(*decision.actions, *told), exit_code=exit_code)


def _decide_outage(
    state: HealthState, checks: Checks, limits: HealthSection, now_s: int
) -> Decision:
    if checks.layer is None:
        return _end_if_stable(state, limits)
    since_s = now_s if state.failing_since_s is None else state.failing_since_s
    counts = {
        "internal_failures": 0 if checks.internal else state.internal_failures + 1,
        "external_failures": state.external_failures + 1 if checks.external is False else 0,
    }
    counted = {**counts, "good_runs": 0, "failing_since_s": since_s}
    state = state.model_copy(update=counted)
    if max(counts.values()) < limits.failures:
        told = state.incident is not None and state.incident.alerted
        return Decision(state, exit_code=ExitCode.GATE_FAILED if told else ExitCode.PASS)
    incident = _locate(state.incident or Incident(since_s=since_s, layer="app"), checks.layer)
    recent = tuple(at for at in state.restarts_at_s if abs(now_s - at) < HOUR_S)
    if limits.restart_command is None:
        return _alert_once(state, incident, "no-command")
    if limits.restart_on == "external" and checks.layer != "tunnel":
        return _alert_once(state, incident, "other-layer")
    if len(recent) >= limits.max_restarts_per_hour:
        return _alert_once(state, incident, "limit")
    restarted = {**dict.fromkeys(counts, 0), "restarts_at_s": (*recent, now_s)}
    state = state.model_copy(update={**restarted, "incident": incident})
    return Decision(state, ("restart",), "failures")


def _end_if_stable(state: HealthState, limits: HealthSection) -> Decision:
    """All is well: an incident ends after enough good runs, told where its beginning was."""
    good_runs = min(state.good_runs + 1, limits.successes)
    ended = state.incident if good_runs >= limits.successes else None
    healed = HealthState(
        good_runs=good_runs,
        restarts_at_s=state.restarts_at_s,
        incident=None if ended else state.incident,
        degradation=state.degradation,
    )
    return Decision(healed, ("recovery",) if ended and ended.alerted else ())


def _locate(incident: Incident | None, layer: Layer) -> Incident | None:
    """An incident that nobody was told of yet takes the layer of now."""
    if incident is None or incident.alerted:
        return incident
    return incident.model_copy(update={"layer": layer})


def _alert_once(state: HealthState, incident: Incident | None, reason: Reason) -> Decision:
    """Alert unless this incident was told already; the exit code says that it lasts."""
    due = incident is not None and not incident.alerted
    if incident is not None:
        incident = incident.model_copy(update={"alerted": True})
    state = state.model_copy(update={"incident": incident})
    return Decision(state, ("alert",) if due else (), reason, ExitCode.GATE_FAILED)
