"""`pillops doctor`: what is installed, what really works here, what to do next."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from opslib.core.config import Config, is_own_variable, load_config
from opslib.core.errors import ExitCode
from opslib.telling.doors import ConfigOption, describe_experiment, make_console, plain_cells, say

_STYLES = {"ok": "green", "note": "yellow", "problem": "red bold"}


def doctor(
    config: ConfigOption = None,
) -> int:
    """Say what is installed, what really works here, and what to do next; changes nothing."""
    from opslib.ops.checklist.doctor import examine, list_next_steps

    loaded = load_config(config)
    console = make_console()
    say(console, f"{describe_experiment(loaded)}; configuration {loaded.source}")
    findings = list(examine(loaded))
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in findings:
        state = Text(one.state, style=_STYLES[one.state])
        table.add_row(Text(one.area), state, *plain_cells([one.seen]))
    console.print(table)
    say(console, "\nconfiguration as resolved (secrets stay in .env and are not shown)")
    settings = Table(box=None, pad_edge=False, show_header=False)
    for section, keys in describe_config(loaded):
        settings.add_row(*plain_cells([section, keys]))
    console.print(settings)
    named = sorted(filter(is_own_variable, os.environ))
    if named:
        say(console, f"overridden by the environment: {', '.join(named)}")
    steps = list_next_steps(findings)
    say(console, f"\nwhat to do next{_where_pillops_is()}" if steps else "\nnothing to do")
    for number, step in enumerate(steps, start=1):
        say(console, f"{number}. {step}")
    failed = any(one.state == "problem" for one in findings)
    return int(ExitCode.GATE_FAILED if failed else ExitCode.PASS)


def _where_pillops_is() -> str:
    """Where the command lies, for a shell that would not find it by its name."""
    beside = Path(sys.executable).with_name("pillops")
    return "" if shutil.which("pillops") else f" (`pillops` is {beside})"


def describe_config(config: Config) -> list[tuple[str, str]]:
    """Return each section and its keys with their values, paths resolved, as one line each."""
    lines = []
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Path):
            continue
        given = _list_given(section) if isinstance(section, BaseModel) else section
        pairs = [f"{key} {_show(config, value)}" for key, value in given.items()]
        lines.append((name, "; ".join(pairs) or "defaults"))
    return lines


def _list_given(section: BaseModel) -> dict[str, Any]:
    """The keys of a section that were given, in the order of their definition."""
    given = section.model_fields_set
    return {key: getattr(section, key) for key in type(section).model_fields if key in given}


def _show(config: Config, value: Any) -> str:
    if isinstance(value, Path):
        return str(config.resolve(value))
    if isinstance(value, tuple):
        return ",".join(_show(config, one) for one in value) or "none"
    value = _list_given(value) if isinstance(value, BaseModel) else value
    if isinstance(value, dict):
        return " ".join(f"{key}={_show(config, one)}" for key, one in value.items()) or "none"
    return "none" if value is None else str(value)
