"""Ways to spoil a script: what to replace by what, and the rule that must notice it.

The first place where a spoiling fits is taken; a script in which it fits nowhere is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.powershell.parsing import Script, parse


@dataclass(frozen=True)
class Mutation:
    """A pattern in the script's text (line ends plain), what takes its place, and the rule."""

    rule: str
    pattern: str
    replacement: str

    def apply(self, script: Script) -> Script | None:
        text, count = re.subn(self.pattern, self.replacement, script.text, count=1, flags=re.M)
        if count == 0:
            return None
        end = "\n" if self.rule == "has_windows_line_ends" else "\r\n"
        raw = text.replace("\n", end).encode("utf-8")
        return parse(script.name, raw)


MUTATIONS = [
    Mutation("parses", r"^\}\n", ""),
    Mutation("parses", r"\$ErrorActionPreference = 'Stop'", "$ErrorActionPreference = 'Stop"),
    Mutation("is_ascii", r"<#\n", "<#\n    \u2013 "),
    Mutation("has_windows_line_ends", r"\Z", ""),
    Mutation("is_strict", r"#Requires -Version 5\.1", "#Requires -Version 7.0"),
    Mutation("is_strict", r"^Set-StrictMode -Version Latest\n", ""),
    Mutation("is_strict", r"'Stop'", "'Continue'"),
    Mutation("is_guarded", r"-ne '\.'", "-ne ''"),
    Mutation("is_guarded", r"^(if \(\$MyInvocation)", r"Start-Sleep -Seconds 1\n\1"),
    Mutation("calls_what_both_editions_have", r"Get-ErrorText -", "Get-ErorText -"),
    Mutation("calls_what_both_editions_have", r" -Settings \$settings", " -Setting $settings"),
    Mutation(
        "calls_what_both_editions_have", r"\[Console\]::Error\.WriteLine\(", "Write-EventLog ("
    ),
    Mutation(
        "calls_what_both_editions_have", r"Get-CimInstance -ClassName", "Get-WmiObject -Class"
    ),
    Mutation("calls_what_both_editions_have", r"New-TimeSpan -Minutes", "New-Span -Minutes"),
    Mutation("catches_untyped", r"catch \{", "catch [System.Net.WebException] {"),
    Mutation(
        "finishes_each_try", r"\n    catch \{\n(?:        .*\n)+    \}\n(?!    finally)", "\n"
    ),
    Mutation("finishes_each_try", r"catch \{\n(?:        .*\n)+    \}", "catch { }"),
    Mutation("uses_own_operators", r" -ne '", " != '"),
    Mutation("uses_own_operators", r" -eq '", " == '"),
    Mutation("uses_own_operators", r"\) -and \(", ") && ("),
    Mutation("ends_names_in_text", r'"\$(\w+) ', r'"$\1: '),
    Mutation("ends_names_in_text", r'"\$\((\$\w+)\.\w+\)', r'"\1:'),
    Mutation("sets_what_it_reads", r"\$(sha|killer|program) = ", "$other = "),
    Mutation("sets_what_it_reads", r"-Settings \$settings", "-Settings $setings"),
    Mutation("sets_what_it_reads", r"\[hashtable\]\$(\w+)\)", r"[hashtable]$\1s)"),
    Mutation("names_functions_well", r"function Invoke-", "function Do-"),
    Mutation("writes_state_whole", r"\[NullString\]::Value", "$null"),
    Mutation("writes_state_whole", r"\[System\.IO\.File\]::Move\(\$temporary", "Copy($temporary"),
    Mutation("closes_before_it_deletes", r"\$pack\.Dispose\(\)", "$pack.Flush()"),
    Mutation(
        "closes_before_it_deletes",
        r"(                \$from\.CopyTo\(\$pack\)\n)",
        r"\1                [System.IO.File]::Delete($Source)\n",
    ),
    Mutation("closes_before_it_deletes", r"\$stream\.Dispose\(\)\n        \$file", "$file"),
    Mutation("bounds_what_it_starts", r"WaitForExit\(\$TimeoutSeconds \* 1000\)", "WaitForExit()"),
    Mutation("bounds_what_it_starts", r"\$task\.Wait\(\$TimeoutSeconds \* 1000\)", "$task.Result"),
    Mutation("bounds_what_it_starts", r"/PID \$ProcessId", "/IM cloudflared.exe"),
    Mutation("bounds_what_it_starts", r"Invoke-TreeKill -ProcessId \$id", "Stop-Process -Id $id"),
    Mutation(
        "pauses_for_a_moment_only",
        r"    finally \{\n        if \(\$paused\)(.*)\n    \}",
        r"    catch { throw }\n    if ($paused)\1",
    ),
]
