"""The configuration's `maintenance:` section: what the nightly cleaning keeps, and for how long."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from opslib.core.sections import FilePattern, PositiveInt, Section


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


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
LogNames = Annotated[tuple[FilePattern, ...], BeforeValidator(_split_commas)]
Checkpoints = Annotated[
    tuple[Annotated[str, AfterValidator(_check_checkpoints)], ...], BeforeValidator(_split_commas)
]
Addresses = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
Mounts = Annotated[tuple[Path, ...], BeforeValidator(_split_commas)]


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
