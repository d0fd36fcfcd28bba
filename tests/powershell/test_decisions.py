"""H-1, H-4: the decisions in the Windows scripts are those of the case tables.

Run by the interpreter beside this file, for want of a PowerShell engine: the workflow
`.github/workflows/windows.yml` runs the same tables on Windows.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from opslib.upkeep.notices import (
    DEGRADED,
    DEGRADED_WHY,
    LAYERS_DOWN,
    LAYERS_WERE,
    REASONS,
    SOUND,
)
from tests.powershell.interpreter import NOTHING, Interpreter, ScriptError
from tests.powershell.parsing import ROOT, Script, parse, read_script

CASES = ROOT / "tests" / "cases"
HEALTH = json.loads((CASES / "health.json").read_text())
ROTATION = json.loads((CASES / "rotation.json").read_text())
WATCH = ROOT / "scripts" / "health_watch.ps1"
ROTATE = ROOT / "scripts" / "rotate_logs.ps1"
ANSWERS = {"ok": True, "degraded": True, "fail": False, "none": None}
EPOCH_S = 1_800_000_000


def read_checks(step: dict[str, str]) -> dict[str, Any]:
    words = {name: step[name] for name in ("internal", "external")}
    up = [word == "degraded" for word in words.values() if ANSWERS[word]]
    degraded = any(up) if up else None
    return {name: ANSWERS[word] for name, word in words.items()} | {"degraded": degraded}


def play_health(script: Script, case: dict[str, Any]) -> None:
    """One case, through the script's two decisions."""
    machine = Interpreter(script)
    policy = HEALTH["policy"] | case.get("policy", {})
    state = machine.call("Get-EmptyState")
    for step in case["steps"]:
        at_s = EPOCH_S + 60 * step["minute"]
        before = copy.deepcopy(state)
        decision = machine.call(
            "Get-HealthDecision", State=state, Checks=read_checks(step), Policy=policy, NowS=at_s
        )
        assert state == before, "the state that was given is changed"
        actions = list(decision["actions"])
        assert ("restart" in actions) == ("recheck" in step)
        if "recheck" in step:
            between = copy.deepcopy(decision["state"])
            recheck = machine.call(
                "Get-RecheckDecision",
                State=decision["state"],
                Checks=read_checks(step["recheck"]),
                Policy=policy,
            )
            assert decision["state"] == between, "the state that was given is changed"
            decision = recheck
            actions += decision["actions"]
        assert actions == step["actions"], step["minute"]
        assert decision["exit_code"] == step["exit"], step["minute"]
        assert decision["reason"] == step.get("reason", decision["reason"]), step["minute"]
        if "layer" in step:
            assert decision["state"]["incident"]["layer"] == step["layer"], step["minute"]
        if "since" in step:
            since_s = EPOCH_S + 60 * step["since"]
            assert decision["state"]["incident"]["since_s"] == since_s, step["minute"]
        if "degraded_since" in step:
            since_s = EPOCH_S + 60 * step["degraded_since"]
            assert decision["state"]["degradation"]["since_s"] == since_s, step["minute"]
        state = decision["state"]


def play_rotation(script: Script) -> None:
    """All cases of the rotation, through the script's three decisions."""
    machine = Interpreter(script)
    log = ROTATION["log"]
    for case in ROTATION["due"]:
        due = machine.call(
            "Get-DueReason",
            SizeBytes=case["size_bytes"],
            AgeDays=case["age_days"],
            Policy=ROTATION["policy"],
        )
        assert due == case["due"], case["name"]
    for case in ROTATION["names"]:
        name = machine.call("Get-ArchiveName", LogName=log, Day=case["day"], Taken=case["taken"])
        assert name == case["name"]
    for case in ROTATION["surplus"]:
        found = machine.call(
            "Get-SurplusArchive", LogName=log, Names=case["names"], Keep=case["keep"]
        )
        listed = [] if found is NOTHING else found if isinstance(found, list) else [found]
        assert listed == case["delete"], case["name"]


@pytest.mark.parametrize("case", HEALTH["cases"], ids=lambda case: case["name"])
def test_the_watch_decides_as_the_table_says(case: dict[str, Any]) -> None:
    play_health(read_script(WATCH), case)


def test_the_rotation_decides_as_the_table_says() -> None:
    play_rotation(read_script(ROTATE))


DECISIONS = {
    WATCH: (
        "Get-FailedLayer",
        "Get-HealthDecision",
        "Get-DegradationDecision",
        "Get-ExitCode",
        "Get-OutageDecision",
        "Get-RecheckDecision",
        "Get-GoodRunDecision",
        "Get-IncidentWithLayer",
        "Get-AlertDecision",
    ),
    ROTATE: ("Get-DueReason", "Get-ArchiveOrder", "Get-ArchiveName", "Get-SurplusArchive"),
}
SWAPS = [
    (r" -ge ", " -gt "),
    (r" -gt ", " -ge "),
    (r" -lt ", " -le "),
    (r" -and ", " -or "),
    (r" -or ", " -and "),
    (r" -eq ", " -ne "),
    (r" -ne ", " -eq "),
    (r"-not ", ""),
    (r" = 0\b", " = 1"),
    (r" = 3\b", " = 0"),
    (r" \+ 1\b", " + 2"),
    (r" - ", " + "),
    (r"\$true\b", "$false"),
    (r"\$false\b", "$true"),
    (r"'tunnel'", "'app'"),
    (r"'app'", "'both'"),
    (r"'both'", "'tunnel'"),
    (r"@\('(alert|recovery|restart)'\)", "@()"),
    (r"\b3600\b", "60"),
    (r"(?m)^( +)(\$next\.\w+|\$copy\.\w+|\$recent|\$surplus|\$orders) \+?= .*$", r"\1$null = 1"),
]
# Spoilings that change nothing that can be seen, each with the reason.
HARMLESS = {
    ("$next.good_runs -gt $Policy.successes", " -gt "): "the limit is cut to the limit",
    ("$next.good_runs = $Policy.successes", "="): "a larger count of good runs is as good",
    ("$number -gt $last", " -gt "): "the same number is stored again",
    ("$next.incident = $State.incident.Clone()", "="): "whoever calls has copied it already",
    ("reason = 'failures'", " = 0"): "the checks that follow decide on the exit code",
}


def spoil_decisions() -> list[Any]:
    """Every place in the decisions where a swap fits, one spoiled script each."""
    found = []
    for path, names in DECISIONS.items():
        script = read_script(path)
        for name in names:
            source = script.functions[name].text or b""
            body = source.decode()
            for pattern, replacement in SWAPS:
                for match in re.finditer(pattern, body):
                    line = body[: match.start()].count("\n")
                    shown = body.splitlines()[line].strip()
                    if match[0] == match.expand(replacement) or shown.startswith("param("):
                        continue
                    if any(part in shown and what in match[0] for part, what in HARMLESS):
                        continue
                    spoiled = (
                        body[: match.start()] + match.expand(replacement) + body[match.end() :]
                    )
                    label = (
                        f"{name}:{line} {match[0].strip()} to {match.expand(replacement).strip()}"
                    )
                    text = script.text.replace(body, spoiled)
                    found.append(pytest.param(path, text, id=f"{label} ({match.start()})"))
    return found


@pytest.mark.parametrize(("path", "text"), spoil_decisions())
def test_the_tables_notice_a_spoiled_decision(path: Path, text: str) -> None:
    script = parse(path.name, text.encode())
    with pytest.raises((AssertionError, ScriptError, TypeError, IndexError, KeyError)):
        if path == ROTATE:
            play_rotation(script)
        for case in HEALTH["cases"] if path == WATCH else ():
            play_health(script, case)


class Host:
    """What surrounds a run of the watch: the clock, the checks, the state file, the people."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.now_s = EPOCH_S
        self.saved_before_restart: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.lines: list[str] = []
        self.machine = Interpreter(
            read_script(WATCH),
            {
                "Read-WatchMemory": lambda path: {"memory": copy.deepcopy(self.memory), "note": ""},
                "Save-WatchMemory": self.save,
                "Get-NowS": lambda: self.now_s,
                "Get-UtcText": lambda seconds: f"at {seconds - EPOCH_S}",
                "Get-AllResult": lambda settings: self.results(self.answers),
                "Get-SettledResult": lambda settings: self.results(self.after),
                "Invoke-Restart": self.restart,
                "Send-Undelivered": lambda settings, memory: memory | {"undelivered": []},
                "Write-RestartResult": lambda settings, restart: NOTHING,
                "Write-RunLine": lambda settings, text: self.lines.append(text) or NOTHING,
                "Write-Notice": lambda settings, notice: (
                    self.told.append(notice["text"]) or NOTHING
                ),
            },
        )
        self.memory = {"state": self.machine.call("Get-EmptyState"), "undelivered": []}

    def save(self, path: str, memory: dict[str, Any]) -> Any:
        self.memory = copy.deepcopy(memory)
        return NOTHING

    def restart(self, settings: dict[str, Any]) -> dict[str, Any]:
        self.saved_before_restart.append(copy.deepcopy(self.memory["state"]))
        return {"ok": True, "detail": "running"}

    def results(self, checks: dict[str, Any]) -> list[dict[str, Any]]:
        names = ("internal", "external")
        watched = {name: checks[name] for name in names if checks[name] is not None}
        return [
            {
                "name": name,
                "url": f"http://{name}",
                "ok": ok,
                "degraded": ok and checks["degraded"],
                "detail": "HTTP 200" if ok else "down",
            }
            for name, ok in watched.items()
        ]

    def run(self, step: dict[str, Any], policy: dict[str, Any]) -> int:
        self.now_s = EPOCH_S + 60 * step["minute"]
        self.answers = read_checks(step)
        self.after = read_checks(step["recheck"]) if "recheck" in step else {}
        settings = {"StatePath": "state", "Policy": policy}
        return int(self.machine.call("Invoke-HealthRun", Settings=settings))


@pytest.mark.parametrize("case", HEALTH["cases"], ids=lambda case: case["name"])
def test_a_whole_run_keeps_tells_and_ends_as_the_table_says(case: dict[str, Any]) -> None:
    host = Host()
    policy = HEALTH["policy"] | case.get("policy", {})
    for step in case["steps"]:
        told, restarts = len(host.told), len(host.saved_before_restart)
        assert host.run(step, policy) == step["exit"]
        new = host.told[told:]
        words = {
            "alert": r"PillSnap ALERT: .* (is|are both) down",
            "recovery": r"PillSnap RECOVERED: all checks answer again",
            "alert-degraded": rf"PillSnap ALERT: {DEGRADED} \({DEGRADED_WHY}\); internal ",
            "recovery-degraded": rf"PillSnap RECOVERED: {SOUND} \d+ min ",
        }
        due = sorted(set(step["actions"]) - {"restart"}, key=list(words).index)
        for text, action in zip(new, due, strict=True):
            assert re.match(words[action], text), text
        assert len(host.saved_before_restart) - restarts == step["actions"].count("restart")
        assert re.match(
            r"internal (ok|DEGRADED) \(HTTP 200\)|internal FAILED \(down", host.lines[-1]
        )
    for state in host.saved_before_restart:
        assert state["restarts_at_s"], "a restart is counted before it is made"


def test_the_words_of_the_script_are_those_of_the_twin() -> None:
    host = Host()
    down = {"internal": "ok", "external": "fail"}
    host.run({"minute": 0, **down}, HEALTH["policy"])
    host.run({"minute": 1, **down, "recheck": down}, HEALTH["policy"])
    (alert,) = host.told
    assert alert == (
        "PillSnap ALERT: the tunnel is down, the app answers (still failing after a restart); "
        "internal http://internal: HTTP 200; external http://external: down [HOST, since at 0]"
    )
    assert host.lines[-1] == (
        "internal ok (HTTP 200) | external FAILED (down) | layer tunnel | restart, alert"
    )
    for minute in (2, 3):
        host.run({"minute": minute, "internal": "ok", "external": "ok"}, HEALTH["policy"])
    assert host.told[-1] == (
        "PillSnap RECOVERED: all checks answer again; the tunnel was down for 3 min "
        "[HOST, since at 0]"
    )


def test_layers_and_reasons_are_told_in_the_words_of_the_twin() -> None:
    text = read_script(WATCH).text
    told = (DEGRADED, DEGRADED_WHY, SOUND)
    for words in (*LAYERS_DOWN.values(), *LAYERS_WERE.values(), *REASONS.values(), *told):
        assert f"'{words}'" in text
