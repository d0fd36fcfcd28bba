"""When a restart, an alert or a recovery notice is due: one pure function of state and checks.

The same rules stand in `scripts/health_watch.ps1`; both are held against `tests/cases/health.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from opslib.core.errors import ExitCode
from opslib.core.records import Part, Record

HOUR_S = 3600
MINUTE_S = 60

ActionName = Literal["restart", "alert", "recovery", "alert-degraded", "recovery-degraded"]
Layer = Literal["app", "tunnel", "both"]
Reason = Literal["", "failures", "still-failing", "no-command", "other-layer", "limit"]


@dataclass(frozen=True)
class Policy:
    """The numbers that decide; see `HealthSection`."""

    failures: int = 2
    successes: int = 2
    restart_on: Literal["any", "external"] = "any"
    can_restart: bool = True
    max_restarts_per_hour: int = 3


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
    def good(self) -> bool:
        """Whether everything that is watched answered."""
        return self.internal and self.external is not False

    @property
    def layer(self) -> Layer | None:
        """What failed: the app, the tunnel before it, or both; None where nothing did."""
        if self.good:
            return None
        if self.internal:
            return "tunnel"
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

    @property
    def lasts(self) -> bool:
        """Whether the last run that was answered saw it, and it was told."""
        return self.alerted and self.runs > 0


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


def decide(state: HealthState, checks: Checks, policy: Policy, now_s: int) -> Decision:
    """Return what a run with these `checks` leads to."""
    degradation, told = follow_degradation(state.degradation, checks.degraded, policy, now_s)
    followed = state.model_copy(update={"degradation": degradation})
    return _add(_decide_outage(followed, checks, policy, now_s), told)


def follow_degradation(
    before: Degradation, degraded: bool | None, policy: Policy, now_s: int
) -> tuple[Degradation, tuple[ActionName, ...]]:
    """Return what is known of a degraded service after a run, and whether people are told.

    Told after as many runs as a failure takes, once; over after as many good ones. A run in which
    nobody answered says nothing about it.
    """
    if degraded is None:
        return before, ()
    if degraded:
        runs = before.runs + 1
        due = runs >= policy.failures and not before.alerted
        since_s = now_s if before.since_s is None else before.since_s
        after = Degradation(runs=runs, since_s=since_s, alerted=before.alerted or due)
        return after, ("alert-degraded",) if due else ()
    good_runs = before.good_runs + 1
    if before.since_s is None or good_runs >= policy.successes:
        return Degradation(), ("recovery-degraded",) if before.alerted else ()
    return before.model_copy(update={"runs": 0, "good_runs": good_runs}), ()


def _add(decision: Decision, told: tuple[ActionName, ...]) -> Decision:
    """The decision on an outage, with what is told of a degraded service and its exit code."""
    lasts = decision.state.degradation.lasts
    exit_code = ExitCode.GATE_FAILED if lasts else decision.exit_code
    return replace(decision, actions=(*decision.actions, *told), exit_code=exit_code)


def _decide_outage(state: HealthState, checks: Checks, policy: Policy, now_s: int) -> Decision:
    if checks.layer is None:
        return _end_if_stable(state, policy)
    counted = state.model_copy(
        update={
            "internal_failures": 0 if checks.internal else state.internal_failures + 1,
            "external_failures": state.external_failures + 1 if checks.external is False else 0,
            "good_runs": 0,
            "failing_since_s": now_s if state.failing_since_s is None else state.failing_since_s,
        }
    )
    if max(counted.internal_failures, counted.external_failures) < policy.failures:
        told = state.incident is not None and state.incident.alerted
        return Decision(counted, exit_code=ExitCode.GATE_FAILED if told else ExitCode.PASS)
    opened = _open_incident(counted, checks.layer, now_s)
    recent = tuple(at for at in state.restarts_at_s if abs(now_s - at) < HOUR_S)
    if not policy.can_restart:
        return _alert_once(opened, "no-command")
    if policy.restart_on == "external" and checks.layer != "tunnel":
        return _alert_once(opened, "other-layer")
    if len(recent) >= policy.max_restarts_per_hour:
        return _alert_once(opened, "limit")
    restarted = {"restarts_at_s": (*recent, now_s), "internal_failures": 0, "external_failures": 0}
    return Decision(opened.model_copy(update=restarted), ("restart",), "failures")


def decide_forgetful(checks: Checks, policy: Policy, now_s: int) -> Decision:
    """Return what a run without any memory leads to: one failure has to do, and something is done
    in the first minute of an hour alone, so that no restart and no alert comes twice in one."""
    decision = decide(HealthState(), checks, replace(policy, failures=1), now_s)
    if hour_begins(now_s) or not decision.actions:
        return decision
    return replace(decision, actions=(), exit_code=ExitCode.GATE_FAILED)


def hour_begins(now_s: int) -> bool:
    """Whether it is the first minute of an hour."""
    return now_s % HOUR_S < MINUTE_S


def decide_after_restart(state: HealthState, checks: Checks, policy: Policy) -> Decision:
    """Return what follows when the `checks` were asked again after a restart."""
    if checks.layer is None:
        return _add(_end_if_stable(state, policy), ())
    if state.incident is not None and not state.incident.alerted:
        incident = state.incident.model_copy(update={"layer": checks.layer})
        state = state.model_copy(update={"incident": incident})
    return _alert_once(state, "still-failing")


def _end_if_stable(state: HealthState, policy: Policy) -> Decision:
    """All is well: an incident ends after enough good runs, told where its beginning was."""
    good_runs = min(state.good_runs + 1, policy.successes)
    incident = state.incident
    healed = HealthState(
        good_runs=good_runs,
        restarts_at_s=state.restarts_at_s,
        incident=incident,
        degradation=state.degradation,
    )
    if incident is None or good_runs < policy.successes:
        return Decision(healed)
    closed = healed.model_copy(update={"incident": None})
    return Decision(closed, ("recovery",) if incident.alerted else ())


def _open_incident(state: HealthState, layer: Layer, now_s: int) -> HealthState:
    """The state with an incident; one that nobody was told of yet takes the layer of now."""
    since_s = now_s if state.failing_since_s is None else state.failing_since_s
    incident = state.incident or Incident(since_s=since_s, layer=layer)
    if not incident.alerted:
        incident = incident.model_copy(update={"layer": layer})
    return state.model_copy(update={"incident": incident})


def _alert_once(state: HealthState, reason: Reason) -> Decision:
    """Alert unless this incident was told already; the exit code says that it lasts."""
    incident = state.incident
    if incident is None or incident.alerted:
        return Decision(state, (), reason, ExitCode.GATE_FAILED)
    told = incident.model_copy(update={"alerted": True})
    state = state.model_copy(update={"incident": told})
    return Decision(state, ("alert",), reason, ExitCode.GATE_FAILED)
