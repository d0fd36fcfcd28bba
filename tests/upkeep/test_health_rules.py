"""H-4: what the health watch decides, by the table that the Windows script is held to as well."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opslib.core.upkeep_sections import HealthSection
from opslib.upkeep.health_rules import (
    HOUR_S,
    Checks,
    Decision,
    HealthState,
    Incident,
    decide,
    decide_after_restart,
)
from opslib.upkeep.probe import judge

TABLE = json.loads((Path(__file__).parents[1] / "cases" / "health.json").read_text())
ANSWERS = {"ok": True, "degraded": True, "fail": False, "none": None}
EPOCH_S = 1_800_000_000


def make_limits(*, can_restart: bool, **limits: Any) -> HealthSection:
    """The section that says what the table calls a policy."""
    return HealthSection(restart_command="restart" if can_restart else None, **limits)


def read_checks(step: dict[str, str]) -> Checks:
    words = (step["internal"], step["external"])
    up = [word == "degraded" for word in words if ANSWERS[word]]
    internal, external = (ANSWERS[word] for word in words)
    return Checks(bool(internal), external, any(up) if up else None)


def run(
    state: HealthState, checks: Checks, recheck: Checks | None, policy: HealthSection, now_s: int
) -> tuple[list[str], Decision]:
    """One run, as the program makes it: the second decision follows a restart alone."""
    first = decide(state, checks, policy, now_s)
    actions = list(first.actions)
    if "restart" not in actions:
        assert recheck is None, "the table asks again where nothing was restarted"
        return actions, first
    assert recheck is not None, "restarted, where the table does not say so"
    second = decide_after_restart(first.state, recheck, policy)
    return actions + list(second.actions), second


@pytest.mark.parametrize(
    "answer", TABLE["answers"], ids=lambda one: f"{one['status']} {one['body']}"
)
def test_an_answer_is_judged_as_the_table_says(answer: dict[str, Any]) -> None:
    ok, degraded, detail = judge(answer["status"], answer["body"].encode())
    assert ok is answer["ok"]
    assert degraded is answer["degraded"]
    assert detail.startswith(f"HTTP {answer['status']}")
    assert answer["says"] in detail


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_a_run_does_what_the_table_says(case: dict[str, Any]) -> None:
    policy = make_limits(**(TABLE["policy"] | case.get("policy", {})))
    state = HealthState()
    for step in case["steps"]:
        recheck = read_checks(step["recheck"]) if "recheck" in step else None
        at_s = EPOCH_S + 60 * step["minute"]
        actions, decision = run(state, read_checks(step), recheck, policy, at_s)
        where = f"minute {step['minute']}"
        assert actions == step["actions"], where
        assert decision.exit_code == step["exit"], where
        assert decision.reason == step.get("reason", decision.reason), where
        if "layer" in step:
            assert decision.state.incident is not None, where
            assert decision.state.incident.layer == step["layer"], where
        if "since" in step:
            assert decision.state.incident is not None, where
            assert decision.state.incident.since_s == EPOCH_S + 60 * step["since"], where
        if "degraded_since" in step:
            since_s = EPOCH_S + 60 * step["degraded_since"]
            assert decision.state.degradation.since_s == since_s, where
        state = HealthState.model_validate_json(decision.state.to_json())


def test_the_table_reaches_every_action_reason_and_layer() -> None:
    steps = [step for case in TABLE["cases"] for step in case["steps"]]
    assert {action for step in steps for action in step["actions"]} == {
        "restart",
        "alert",
        "recovery",
        "alert-degraded",
        "recovery-degraded",
    }
    reasons = {step["reason"] for step in steps if "reason" in step}
    assert reasons == {"still-failing", "no-command", "other-layer", "limit"}
    assert {step["layer"] for step in steps if "layer" in step} == {"app", "tunnel", "both"}


answers = st.sampled_from(
    [
        Checks(internal, external, degraded)
        for internal in (True, False)
        for external in (True, False, None)
        for degraded in ((True, False) if internal or external else (None,))
    ]
)


@given(
    runs=st.lists(st.tuples(answers, answers, st.integers(0, 40)), max_size=80),
    policy=st.builds(
        make_limits,
        failures=st.integers(1, 4),
        successes=st.integers(1, 4),
        restart_on=st.sampled_from(["any", "external"]),
        can_restart=st.booleans(),
        max_restarts_per_hour=st.integers(0, 4),
    ),
)
def test_whatever_happens_restarts_are_bounded_and_alerts_and_recoveries_take_turns(
    runs: list[tuple[Checks, Checks, int]], policy: HealthSection
) -> None:
    state, now_s = HealthState(), EPOCH_S
    restarts: list[int] = []
    told: list[str] = []
    of_model: list[str] = []
    for checks, after, minutes in runs:
        now_s += 60 * minutes
        decision = decide(state, checks, policy, now_s)
        of_model += [action for action in decision.actions if action.endswith("-degraded")]
        assert checks.layer is not None or "restart" not in decision.actions
        if "restart" in decision.actions:
            restarts.append(now_s)
            decision = decide_after_restart(decision.state, after, policy)
        told += [action for action in decision.actions if action in ("alert", "recovery")]
        state = decision.state
        assert sum(now_s - at < HOUR_S for at in restarts) <= policy.max_restarts_per_hour
    assert told == [("alert", "recovery")[index % 2] for index in range(len(told))]
    assert of_model == [
        ("alert-degraded", "recovery-degraded")[index % 2] for index in range(len(of_model))
    ]
    assert policy.restart_command or not restarts


def test_a_state_of_the_build_before_is_read_with_its_incident() -> None:
    before = HealthState(internal_failures=2, incident=Incident(since_s=1, layer="app"))
    kept = json.loads(before.to_json())
    del kept["degradation"]
    assert HealthState.model_validate(kept) == before
