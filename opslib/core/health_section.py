"""The configuration's `health` and `rotate` sections: what is watched, and when a log is cut."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from opslib.core.sections import PositiveInt, Reference, Section


def _check_url(value: str) -> str:
    wanted = "expected http://host/path or https://host/path"
    if any(character.isspace() or not character.isprintable() for character in value):
        raise ValueError(wanted)
    try:
        parts = urlsplit(value)
        _ = parts.port
        (parts.hostname or "").encode("idna")  # refuses what no resolver takes
    except ValueError as error:
        raise ValueError(wanted) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(wanted)
    if parts.username or parts.password:
        raise ValueError("expected an address without a name or password in it")
    return value


def _check_command(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"expected a command line: {error}") from error
    if not words:
        raise ValueError("expected a command line, or null for none")
    return value


Url = Annotated[str, AfterValidator(_check_url)]
CommandLine = Annotated[str, AfterValidator(_check_command)]
Lowered = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class HealthSection(Section):
    """What is asked every minute, when something is restarted, and who is told."""

    internal_url: Url = "http://localhost:8000/health"
    external_url: Url | None = None
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    failures: PositiveInt = 2
    successes: PositiveInt = 2
    restart_on: Annotated[Literal["any", "external"], Lowered] = "any"
    restart_command: CommandLine | None = None
    restart_timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    settle_s: Annotated[float, Field(ge=0, le=600)] = 20.0
    max_restarts_per_hour: Annotated[int, Field(ge=0)] = 3
    webhook: Reference = None
    log: Path | None = None
    state: Path | None = None


class RotateSection(Section):
    """Which log is cut, at what size or age, and how many archives of it are kept."""

    log: Path | None = None
    max_mb: Annotated[float, Field(gt=0)] = 100.0
    max_days: Annotated[float, Field(gt=0)] = 7.0
    keep: PositiveInt = 10
    state: Path | None = None
