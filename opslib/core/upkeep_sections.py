"""The configuration's sections of what runs by itself: jobs, health, cleaning, releases, checks."""

import re
import shlex
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from opslib.core.secrets import split_http
from opslib.core.section_types import (
    FilePattern,
    Place,
    PositiveInt,
    Reference,
    Section,
    split_commas,
)


def _check_url(value: str) -> str:
    try:
        if any(character.isspace() or not character.isprintable() for character in value):
            raise ValueError("blanks")
        parts = split_http(value)
    except ValueError as error:
        raise ValueError("expected http://host/path or https://host/path") from error
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


def _check_checkpoints(value: str) -> str:
    """Return a pattern of checkpoints in one folder of the experiment."""
    path = PurePosixPath(value)
    folder = str(path.parent)
    if path.is_absolute() or ".." in path.parts or path.suffix not in (".pt", ".pth"):
        raise ValueError("expected a pattern in the experiment, such as checkpoints/last_*.pt")
    if folder == "." or any(sign in folder for sign in "*?["):
        raise ValueError("expected a folder without * and ?, such as checkpoints/last_*.pt")
    return value


Days = Annotated[int, Field(ge=1, le=36_500)]
LogNames = Annotated[tuple[FilePattern, ...], BeforeValidator(split_commas)]
Checkpoints = Annotated[
    tuple[Annotated[str, AfterValidator(_check_checkpoints)], ...], BeforeValidator(split_commas)
]
Addresses = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
Mounts = Annotated[tuple[Path, ...], BeforeValidator(split_commas)]


class MaintenanceSection(Section):
    """How old what may get, how many of what are kept, and when a disk is called full."""

    log_patterns: LogNames = ("*.out", "*.err")
    log_days: Days = 7
    rotate_mb: Annotated[float, Field(ge=0.01, le=1_000_000)] = 100.0
    reopened_logs: LogNames = ()
    archive_days: Days = 30
    checkpoint_patterns: Checkpoints = ("checkpoints/last_*.pt",)
    checkpoint_days: Days = 14
    keep_onnx: PositiveInt = 5
    quantized_days: Days = 30
    restored_days: Days = 30
    report_days: Days = 365
    leftover_hours: Annotated[int, Field(ge=1, le=876_000)] = 24
    clock_gap_days: Days = 30
    also_serving: Addresses = ()
    version_timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    disks: Mounts = (Path("/"), Path("/mnt/data"))
    disk_warn_pct: Annotated[float, Field(gt=0, le=100)] = 90.0


class ReleaseSection(Section):
    """How many releases stay, where a second copy goes, who signs them and whose signatures are
    accepted, and what an archive may unpack to."""

    keep: PositiveInt = 8
    copy_to: Place = None
    signing_key: Path | None = None
    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    max_files: PositiveInt = 10_000
    max_file_mb: PositiveInt = 16_384
    max_total_mb: PositiveInt = 65_536

    @model_validator(mode="after")
    def _check_revoked(self) -> Self:
        if self.revoked_keys is not None and self.allowed_signers is None:
            raise ValueError("expected allowed_signers beside revoked_keys")
        return self


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(split_commas)]
Positive = Annotated[float, Field(gt=0)]
Percent = Annotated[float, Field(gt=0, le=100)]


class ChecklistSection(Section):
    """Where the checklist looks and from which value on an item is no longer `ok`.

    Units: `_s` seconds, `_h` hours, `_days` days, `_pct` percent, `_mb` MiB.
    """

    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    api_logs: Annotated[LogNames, Field(min_length=1)] = ("api.err",)
    cloudflared_log: Path | None = None
    log_ignore: Texts = ()
    log_errors_failed: PositiveInt = 100
    disk_attention_pct: Percent = 85.0
    disk_failed_pct: Percent = 95.0
    disk_full_days: Positive = 30.0
    maintenance_age_h: Positive = 36.0
    release_age_days: Positive = 8.0
    proof_age_days: Positive = 8.0
    key_age_days: Positive = 31.0
    upload_limit_mb: PositiveInt = 20
    bench_age_days: Positive = 35.0
    regression_attention_pct: Positive = 5.0
    regression_failed_pct: Positive = 10.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for what in ("disk", "regression"):
            if getattr(self, f"{what}_attention_pct") > getattr(self, f"{what}_failed_pct"):
                wanted = f"expected {what}_attention_pct to be at most {what}_failed_pct"
                raise ValueError(wanted)
        return self


_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_MONTHS = frozenset(re.findall("...", "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"))
_DAYS = frozenset(re.findall("...", "SUNMONTUEWEDTHUFRISAT"))
_NAMES: tuple[frozenset[str], ...] = (frozenset(), frozenset(), frozenset(), _MONTHS, _DAYS)


def _check_cron(value: Any) -> Any:
    """Return a cron expression with single blanks, or raise `ValueError` saying what is wrong."""
    if value is None:
        return None
    wanted = "expected cron's five fields (minute hour day month weekday), or null for never"
    if not isinstance(value, str):
        raise ValueError(wanted)
    from cronsim import CronSim, CronSimError

    fields = value.upper().split()
    if len(fields) != len(_NAMES) or not all(map(_is_plain, fields, _NAMES)):
        raise ValueError(wanted)
    text = " ".join(fields)
    try:
        next(CronSim(text, datetime(2000, 1, 1)))  # noqa: DTZ001 (any moment will do)
    except StopIteration as error:
        raise ValueError(f"that moment never comes; {wanted}") from error
    except CronSimError as error:
        raise ValueError(f"{str(error).lower()}; {wanted}") from error
    return text


def _is_plain(field: str, names: frozenset[str]) -> bool:
    """Whether every cron knows such a field: no `L`, `W` or `#` of later ones."""
    return bool(_FIELD.fullmatch(field)) and set(re.findall(r"[A-Z]+", field)) <= names


CronExpression = Annotated[str | None, BeforeValidator(_check_cron)]


class DeadManSection(Section):
    """Which URL is fetched after each job: as it is after a good run, with `/fail` otherwise."""

    maintenance: Reference = None
    release: Reference = None
    bench: Reference = None
    drill: Reference = None
    index: Reference = None
    health: Reference = None


class ScheduleSection(Section):
    """When cron starts each job, how long one may take, and who hears of it."""

    maintenance: CronExpression = "0 2 * * *"
    release: CronExpression = "30 3 * * 0"
    bench: CronExpression = "0 4 1 * *"
    drill: CronExpression = "0 5 1 * *"
    index: CronExpression = "30 2 * * *"
    health: CronExpression = None
    timeout_s: Annotated[float, Field(gt=0)] = 14_400.0
    dead_man: DeadManSection = DeadManSection()
