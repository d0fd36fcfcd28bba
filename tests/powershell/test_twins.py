"""H-1, H-4: Python and PowerShell decide alike, on 2,000 random runs of each."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opslib.core.upkeep_sections import RotateSection
from opslib.upkeep.health_rules import Checks, HealthState, decide, decide_after_restart
from opslib.upkeep.rotation_rules import MEBIBYTE, find_due, find_surplus, name_archive
from tests.powershell.scripts import ROOT
from tests.powershell.test_pester import MISSING
from tests.upkeep.test_health_rules import make_limits

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

LOG, DAYS = "cloudflared.log", ["20261125", "20261126", "20270101"]
NAMES = st.one_of(
    st.builds(
        "{}.{}{}.gz".format,
        st.sampled_from([LOG, LOG, LOG, "other.log", "CLOUDFLARED.LOG"]),
        st.sampled_from([*DAYS, "2026112", "00000000"]),
        st.sampled_from(["", "-1", "-01", "-2", "-9", "-10", "-999999", "-1000000", "-", ".x"]),
    ),
    st.sampled_from([LOG, "config.yml", f"{LOG}.20261125.gz.partial", f"{LOG}.20261125"]),
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


def play(policy: dict[str, Any], steps: list[list[Any]]) -> list[Any]:
    state, told = HealthState(), list[Any]()
    rules = make_limits(**policy)
    for now_s, *checks in steps:
        decision = decide(state, Checks(*checks[:3]), rules, now_s)
        actions = list(decision.actions)
        if "restart" in actions:
            decision = decide_after_restart(decision.state, Checks(*checks[3:]), rules)
            actions += decision.actions
        state = decision.state
        incident, seen = state.incident, state.degradation
        told.append(
            [
                actions,
                decision.reason,
                int(decision.exit_code),
                [state.internal_failures, state.external_failures, state.good_runs],
                [state.failing_since_s, list(state.restarts_at_s)],
                incident and [incident.since_s, incident.layer, incident.alerted],
                [seen.runs, seen.good_runs, seen.since_s, seen.alerted],
            ]
        )
    return told


def ask(engine: subprocess.Popen[str], question: dict[str, Any]) -> Any:
    """What the scripts decide."""
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(json.dumps(question) + "\n")
    engine.stdin.flush()
    return json.loads(engine.stdout.readline())


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@settings(max_examples=2000, suppress_health_check=list(HealthCheck), database=None)
@given(policy=POLICY, drawn=STEPS)
def test_both_watches_decide_alike(
    engine: subprocess.Popen[str], policy: dict[str, Any], drawn: list[Any]
) -> None:
    now_s, steps = 1_800_000_000, []
    for pause_s, checks, again in drawn:
        now_s += pause_s
        steps.append([now_s, *complete(checks), *complete(again)])
    assert ask(engine, {"policy": policy, "steps": steps}) == play(policy, steps)


@pytest.mark.skipif(shutil.which("pwsh") is None, reason=MISSING)
@settings(max_examples=2000, suppress_health_check=list(HealthCheck), database=None)
@given(
    size_bytes=st.sampled_from([0, 1, 99, 100, 101, 1 << 40]),
    age_days=st.floats(-3, 20),
    keep=st.integers(0, 12),
    names=st.lists(NAMES, max_size=14, unique=True),
    day=st.sampled_from(DAYS),
)
def test_both_rotations_decide_alike(
    engine: subprocess.Popen[str],
    size_bytes: int,
    age_days: float,
    keep: int,
    names: list[str],
    day: str,
) -> None:
    limits = RotateSection(max_mb=100 / MEBIBYTE, max_days=7)
    question = {"size_bytes": size_bytes, "age_days": age_days, "keep": keep}
    assert ask(engine, {"log": LOG, "names": names, "day": day} | question) == [
        find_due(size_bytes, age_days, limits),
        name_archive(LOG, day, names),
        find_surplus(LOG, names, keep),
    ]
