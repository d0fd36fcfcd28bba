"""What each script must hold to, found by reading it: each rule returns what breaks it.

The rules are those that keep a script running in Windows PowerShell 5.1 and in PowerShell 7, and
running unattended. The parser overlooks a few things that an engine refuses; they have rules too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tree_sitter import Node

from tests.powershell.parsing import (
    Script,
    find,
    name_of,
    parameters_of,
    text_of,
)

Rule = Callable[[Script], list[str]]

# Commands that both editions have; whatever else is called must be a function of the script.
CMDLETS = {
    "Add-Type",
    "ConvertFrom-Json",
    "ConvertTo-Json",
    "ForEach-Object",
    "Get-CimInstance",
    "Get-Date",
    "Get-ScheduledTask",
    "Get-Service",
    "Join-Path",
    "New-Object",
    "New-ScheduledTaskAction",
    "New-ScheduledTaskPrincipal",
    "New-ScheduledTaskSettingsSet",
    "New-ScheduledTaskTrigger",
    "New-TimeSpan",
    "Register-ScheduledTask",
    "Select-Object",
    "Set-StrictMode",
    "Sort-Object",
    "Start-Sleep",
    "Test-Path",
    "Unregister-ScheduledTask",
}
VERBS = {
    "ConvertTo",
    "Copy",
    "Get",
    "Initialize",
    "Invoke",
    "Open",
    "Read",
    "Save",
    "Send",
    "Test",
    "Write",
}
AUTOMATIC = {
    "_",
    "true",
    "false",
    "null",
    "psscriptroot",
    "pscmdlet",
    "myinvocation",
    "whatifpreference",
    "erroractionpreference",
    "executioncontext",
}
GUARD = "$MyInvocation.InvocationName -ne '.'"


def parses(script: Script) -> list[str]:
    """The tree has no part that the grammar could not read."""

    def broken(node: Node) -> Iterator[Node]:
        if node.type == "ERROR" or node.is_missing:
            yield node
        for child in node.children:
            yield from broken(child)

    return [f"{node.start_point}: {text_of(node)[:60]!r}" for node in broken(script.root)]


def is_ascii(script: Script) -> list[str]:
    """Windows PowerShell reads a file without a mark in the local code page."""
    lines = script.raw.split(b"\r\n")
    return [f"line {n}: not ASCII" for n, line in enumerate(lines, 1) if not line.isascii()]


def has_windows_line_ends(script: Script) -> list[str]:
    """Every line ends with CR LF, the last one too."""
    alone = re.findall(rb"(?<!\r)\n|\r(?!\n)", script.raw)
    return ["a line end that is not CR LF"] * bool(alone) + (
        [] if script.raw.endswith(b"\r\n") else ["the last line has no end"]
    )


def is_strict(script: Script) -> list[str]:
    """Version, strict mode and errors that stop, before anything else."""
    found = [] if script.text.startswith("#Requires -Version 5.1\n") else ["#Requires"]
    first = [text_of(node) for node in script.top_level[:2]]
    wanted = ["Set-StrictMode -Version Latest", "$ErrorActionPreference = 'Stop'"]
    return found + [line for line in wanted if line not in first]


def is_guarded(script: Script) -> list[str]:
    """Dot-sourcing defines functions and does nothing: all that runs is behind the guard."""
    *before, last = script.top_level
    found = []
    if last.type != "if_statement" or f"if ({GUARD})" not in text_of(last):
        found.append("the last statement is not the guard")
    for node in before[2:]:
        is_constant = re.fullmatch(r"\$\w+ = '[^']*'", text_of(node))
        if node.type != "function_statement" and not is_constant:
            found.append(f"runs when dot-sourced: {text_of(node)[:60]}")
    return found


def calls_what_both_editions_have(script: Script) -> list[str]:
    """Known commands and own functions only, own functions with parameters that they have."""
    own = {name: parameters_of(node) for name, node in script.functions.items()}
    found = []
    for node in script.nodes("command"):
        name = text_of(node.child_by_field_name("command_name") or node)
        if text_of(node).startswith("& $"):
            continue
        if name not in CMDLETS | own.keys():
            found.append(f"{name}: neither known nor a function here")
        for word in find(node, "command_parameter") if name in own else ():
            is_own = word.parent is not None and word.parent.parent == node
            if is_own and text_of(word).lstrip("-") not in own[name]:
                found.append(f"{name}: has no parameter {text_of(word)}")
    for word in ("-SkipHttpErrorCheck", "Write-EventLog", "Invoke-Expression"):
        found += [f"{word} is used"] * (word in _code(script))
    return found


def catches_untyped(script: Script) -> list[str]:
    """The editions throw different types for the same failure."""
    return [text_of(node) for node in script.nodes("catch_type_list")]


def finishes_each_try(script: Script) -> list[str]:
    """A `try` has a catch or a finally, and no catch is empty."""
    found = []
    for node in script.nodes("try_statement"):
        kinds = {child.type for child in node.children}
        if not kinds & {"catch_clauses", "finally_clause"}:
            found.append(f"line {node.start_point[0] + 1}: try without catch or finally")
        for clause in find(node, "catch_clause"):
            if not any(child.type == "statement_list" for child in clause.children[-1].children):
                found.append(f"line {clause.start_point[0] + 1}: an empty catch")
    return found


def uses_own_operators(script: Script) -> list[str]:
    """No operators of other languages, none that only 7 has."""
    code = _code(script)
    found = re.findall(r"!=|==|&&|\|\||\?\?|(?<![<>=])\s>\s|\?\s*'[^']*'\s*:", code)
    return [f"operator {one.strip()!r}" for one in found]


def ends_names_in_text(script: Script) -> list[str]:
    """A colon after a name in text makes it a drive: `"$Url: x"` must be `"${Url}: x"`."""
    found = []
    for node in script.nodes("expandable_string_literal"):
        found += re.findall(r"\$(?!env:|script:)[A-Za-z_]\w*:", text_of(node))
    return found


def sets_what_it_reads(script: Script) -> list[str]:
    """Under strict mode, reading a variable that was never set ends the run."""
    outer = {name.lower() for name in script.parameters} | AUTOMATIC
    outer |= {name for node in script.top_level for name in _assigned(node, functions=False)}
    found = []
    for function in script.nodes("function_statement"):
        known = outer | {name.lower() for name in parameters_of(function)} | _assigned(function)
        for name in _read(function) - known:
            found.append(f"{name_of(function)}: ${name} is never set")
    guard = script.top_level[-1]
    inner = {name.lower() for block in find(guard, "param_block") for name in _names(block)}
    found += [f"${name} is never set" for name in _read(guard) - outer - _assigned(guard) - inner]
    return found


def names_functions_well(script: Script) -> list[str]:
    """A verb that PowerShell approves, and a noun."""
    names = script.functions
    return [name for name in names if name.partition("-")[0] not in VERBS or "-" not in name]


def writes_state_whole(script: Script) -> list[str]:
    """What survives to the next run is written beside itself, then renamed."""
    found = []
    for name, node in script.functions.items():
        text = text_of(node)
        if name.startswith("Save-") and ("Memory" in name or "LastRotation" in name):
            for part in (
                "$temporary",
                "::Replace($temporary, $Path, [NullString]::Value)",
                "::Move(",
            ):
                found += [f"{name}: without {part}"] * (part not in text)
    return found


def closes_before_it_deletes(script: Script) -> list[str]:
    """A gzip stream is disposed in a finally, and nothing is deleted where it may still be open."""
    found = []
    for name, node in script.functions.items():
        body = text_of(node)
        for variable in re.findall(
            r"\$(\w+) = New-Object System\.IO\.Compression\.GZipStream", body
        ):
            closed = f"${variable}.Dispose()"
            endings = [text_of(clause) for clause in find(node, "finally_clause")]
            if not any(closed in ending for ending in endings):
                found.append(f"{name}: ${variable} is not disposed in a finally")
            elif "::Delete(" in body and body.index("::Delete(") < body.rindex(closed):
                found.append(f"{name}: deletes before ${variable} is disposed")
    for name, node in script.functions.items():
        body = text_of(node)
        if "Save-Packed -Source" in body and body.rindex("::Delete(") < body.index("Save-Packed"):
            found.append(f"{name}: the source is not deleted after it was packed")
    return found


def bounds_what_it_starts(script: Script) -> list[str]:
    """No program and no request without a deadline; processes end by their id."""
    found = []
    for name, node in script.functions.items():
        body = text_of(node)
        is_bounded = re.search(r"WaitForExit\([$\d]", body)
        if "[System.Diagnostics.Process]::Start(" in body and not is_bounded:
            found.append(f"{name}: waits without an end")
        if "Async(" in body and ".Wait(" not in body:
            found.append(f"{name}: waits without an end for a request")
    code = _code(script)
    found += re.findall(r"Stop-Process|-Wait\b", code)
    found += ["ends a process by its name"] * ("/IM " in script.text)
    return found


def pauses_for_a_moment_only(script: Script) -> list[str]:
    """Whoever is paused goes on, whatever happens between."""
    found = []
    for name, node in script.functions.items():
        if "::NtSuspendProcess(" in text_of(node):
            endings = [text_of(clause) for clause in find(node, "finally_clause")]
            if not any("::NtResumeProcess(" in ending for ending in endings):
                found.append(f"{name}: does not resume in a finally")
    return found


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        parses,
        is_ascii,
        has_windows_line_ends,
        is_strict,
        is_guarded,
        calls_what_both_editions_have,
        catches_untyped,
        finishes_each_try,
        uses_own_operators,
        ends_names_in_text,
        sets_what_it_reads,
        names_functions_well,
        writes_state_whole,
        closes_before_it_deletes,
        bounds_what_it_starts,
        pauses_for_a_moment_only,
    )
}


def _code(script: Script) -> str:
    """The script without comments and without what stands in quotes."""
    text, at, parts = script.text.encode(), 0, []
    hidden = ("comment", "verbatim_string_characters", "expandable_string_literal")
    for node in script.nodes(*hidden):
        if node.start_byte >= at:
            parts.append(text[at : node.start_byte])
            at = node.end_byte
    return b"''".join([*parts, text[at:]]).decode()


def _names(block: Node) -> set[str]:
    return {text_of(node)[1:] for node in find(block, "variable")}


def _assigned(node: Node, *, functions: bool = True) -> set[str]:
    if not functions and node.type == "function_statement":
        return set()
    found = set()
    for one in find(node, "left_assignment_expression"):
        variable = next(find(one, "variable"), None)
        if variable is not None and text_of(variable) == text_of(one):
            found.add(text_of(variable)[1:].lower())
    for one in find(node, "foreach_statement"):
        found.add(text_of(next(c for c in one.children if c.type == "variable"))[1:].lower())
    return found


def _read(node: Node) -> set[str]:
    names = {text_of(one)[1:].strip("{}").lower() for one in find(node, "variable")}
    return {name for name in names if ":" not in name}
