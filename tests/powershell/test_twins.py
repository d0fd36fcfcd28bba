"""H-4: the decisions in Python and in PowerShell are the same, on 2,000 random runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opslib.upkeep.health_rules import Checks, HealthState, Policy, decide, decide_after_restart
from tests.powershell.scripts import ROOT
from tests.powershell.test_pester import MISSING

CHECKS = st.tuples(st.booleans(), st.sampled_from([True, False, None]), st.booleans())
STEPS = st.lists(st.tuples(st.integers(1, 3000), CHECKS, CHECKS), min_size=1, max_size=8)
POLICY = st.fixed_dictionaries(
    {
        "failures": st.integers(1, 3),
        "successes": st.integers(1, 3),
        "restart_on": st.sampled_from(["any", "external"]),
        "can_restart": st.booleans(),
        "max_restarts_per_hour": st.integers(0, 3),
    }
)


@pytest.fixture(scope="module")
def engine() -> Iterator[subprocess.Popen[str]]:
    command = ["pwsh", "-NoProfile", "-File", str(ROOT / "tests/powershell/decide.ps1")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        yield running
        assert running.stdin is not None
        running.stdin.close()


def complete(checks: tuple[bool, bool | None, bool]) -> tuple[bool, bool | None, bool | None]:
    """Nobody who does not answer says that he is degraded."""
    internal, external, degraded = checks
    return internal, external, degraded if internal or external else None


def play(policy: dict[str, Any], steps: list[list[Any]]) -> str:
    state, told = HealthState(), []
    rules = Policy(**policy)
    for now_s, *checks in steps:
        decision = decide(state, Checks(*checks[:3]), rules, now_s)
        actions = list(decision.actions)
        if "restart" in actions:
            decision = decide_after_restart(decision.state, Checks(*checks[3:]), rules)
            actions += decision.actions
        state = decision.state
        restarts = ",".join(map(str, state.restarts_at_s))
        words = [",".join(actions), decision.reason, int(decision.exit_code), state.good_runs]
        told.append(" ".join(map(str, [*words, restarts])))
    return "|".join(told)


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@settings(max_examples=2000, suppress_health_check=list(HealthCheck), database=None)
@given(policy=POLICY, drawn=STEPS)
def test_both_decide_alike(
    engine: subprocess.Popen[str], policy: dict[str, Any], drawn: list[Any]
) -> None:
    now_s, steps = 1_800_000_000, []
    for pause_s, checks, again in drawn:
        now_s += pause_s
        steps.append([now_s, *complete(checks), *complete(again)])
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(json.dumps({"policy": policy, "steps": steps}) + "\n")
    engine.stdin.flush()
    assert engine.stdout.readline().rstrip("\n") == play(policy, steps)
