"""H-1, H-4, H-8: the Windows scripts hold to the rules, and each rule notices when one does not.

Checked by reading alone; `.github/workflows/windows.yml` executes them.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.powershell.mutations import MUTATIONS, Mutation
from tests.powershell.parsing import PESTER, ROOT, SCRIPTS, find, read_script, text_of
from tests.powershell.rules import (
    RULES,
    ends_names_in_text,
    has_windows_line_ends,
    is_ascii,
    parses,
    uses_own_operators,
)

NAMES = ["Register-Tasks.ps1", "health_watch.ps1", "rotate_logs.ps1"]
DEFAULTS = {
    "health_watch.ps1": {
        "InternalUrl": "'http://localhost:8000/health'",
        "ExternalUrl": "'https://api.pillsnap.co.kr/health'",
        "Failures": "2",
        "RestartOn": "'Any'",
        "RestartCommand": "''",
        "ServiceName": "'Cloudflared'",
        "LogPath": r"'C:\ProgramData\Cloudflare\cloudflared\health_watch.log'",
        "MaxRestartsPerHour": "3",
        "Webhook": "''",
    },
    "rotate_logs.ps1": {
        "LogPath": r"'C:\ProgramData\Cloudflare\cloudflared\cloudflared.log'",
        "MaxMB": "100",
        "MaxDays": "7",
        "Keep": "10",
        "ServiceName": "'Cloudflared'",
    },
    "Register-Tasks.ps1": {"RotateAt": "'03:00'", "UserId": "'SYSTEM'", "HealthArguments": "''"},
}
SPOILED = [
    pytest.param(mutation, path, id=f"{number:02d} {mutation.rule} {path.stem}")
    for number, mutation in enumerate(MUTATIONS)
    for path in SCRIPTS
    if mutation.apply(read_script(path)) is not None
]


def test_the_scripts_are_these() -> None:
    assert sorted(path.name for path in SCRIPTS) == sorted(NAMES)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_holds_to_a_rule(path: Path, rule: str) -> None:
    assert RULES[rule](read_script(path)) == []


@pytest.mark.parametrize(("mutation", "path"), SPOILED)
def test_a_rule_notices_a_spoiled_script(mutation: Mutation, path: Path) -> None:
    spoiled = mutation.apply(read_script(path))
    assert spoiled is not None
    assert RULES[mutation.rule](spoiled) != []


def test_every_rule_was_seen_to_fail_and_every_script_was_spoiled() -> None:
    spoiled = Counter((one.values[0].rule, one.values[1].name) for one in SPOILED)  # type: ignore[union-attr]
    assert {rule for rule, _ in spoiled} == RULES.keys()
    general = {rule for rule in RULES if sum(one == rule for one, _ in spoiled) == len(NAMES)}
    assert len(general) >= 10
    used = {one.values[0] for one in SPOILED}
    assert used == set(MUTATIONS), "a spoiling that fits nowhere proves nothing"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_defaults_are_those_of_the_specification(path: Path) -> None:
    parameters = read_script(path).parameters
    for name, default in DEFAULTS[path.name].items():
        assert parameters[name][1] == default, name


def test_restarts_are_chosen_by_name() -> None:
    text = read_script(ROOT / "scripts" / "health_watch.ps1").text
    assert "[ValidateSet('Any', 'External')][string]$RestartOn" in text


def test_the_longest_run_that_the_parameters_allow_ends_before_its_task_is_ended() -> None:
    """A run that Windows ends while it restarts would never tell anybody."""
    script = read_script(ROOT / "scripts" / "health_watch.ps1")
    longest = {
        name: int(top)
        for top, name in re.findall(r"\[ValidateRange\(\d+, (\d+)\)\]\[int\]\$(\w+)", script.text)
    }
    both_checks, webhook = 2 * longest["TimeoutSeconds"], longest["TimeoutSeconds"]
    restart = 4 * longest["RestartTimeoutSeconds"] + 15 + 10 + 15
    settled = longest["SettleSeconds"] + both_checks
    assert both_checks + restart + settled + webhook < 15 * 60


@pytest.mark.parametrize("name", ["health_watch.ps1", "rotate_logs.ps1", "Register-Tasks.ps1"])
def test_paths_count_from_where_the_caller_is(name: str) -> None:
    """.NET counts from the folder that the process was started in, which PowerShell leaves."""
    text = read_script(ROOT / "scripts" / name).text
    for path in re.findall(r"\[string\]\$(\w+(?:Path|Folder)) = '", text):
        assert f"GetUnresolvedProviderPathFromPSPath(${path})" in text


def test_healthy_is_the_text_ok_and_nothing_that_compares_as_equal() -> None:
    """The answers themselves stand in the table that the twin and Pester are held to."""
    text = read_script(ROOT / "scripts" / "health_watch.ps1").text
    assert "($said -isnot [string]) -or ($said -cne 'ok')" in text


def test_a_writer_that_may_not_be_paused_does_not_stop_the_rotation() -> None:
    node = read_script(ROOT / "scripts" / "rotate_logs.ps1").functions["Invoke-LastLook"]
    (caught,) = find(node, "catch_clause")
    assert caught.parent is not None and caught.parent.parent is not None
    assert "NtSuspendProcess($Writer.Handle)" in text_of(caught.parent.parent)
    assert "throw" not in text_of(caught)


def test_the_tasks_do_not_overlap_and_have_limits_of_their_own() -> None:
    text = read_script(ROOT / "scripts" / "Register-Tasks.ps1").text
    for part in (
        "MultipleInstances          = 'IgnoreNew'",
        "ExecutionTimeLimit         = $Task.limit",
        "limit        = New-TimeSpan -Minutes 15",
        "limit        = New-TimeSpan -Hours 2",
        "-RepetitionInterval (New-TimeSpan -Minutes 1)",
        "SupportsShouldProcess = $true",
        "Force       = $true",
    ):
        assert part in text


@pytest.mark.parametrize("path", PESTER, ids=lambda path: path.stem)
def test_a_pester_file_can_be_read_by_both_editions(path: Path) -> None:
    script = read_script(path)
    for rule in (parses, is_ascii, has_windows_line_ends, uses_own_operators, ends_names_in_text):
        assert rule(script) == []


def test_git_keeps_the_line_ends_of_windows() -> None:
    names = [str(path.relative_to(ROOT)) for path in [*SCRIPTS, *PESTER]]
    answer = subprocess.run(
        ["git", "check-attr", "eol", "--", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = answer.stdout.splitlines()
    assert len(lines) == len(names)
    assert all(line.endswith("eol: crlf") for line in lines)
