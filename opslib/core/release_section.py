"""The configuration's `release` section: how releases are made, kept and unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from opslib.core.sections import PositiveInt, Section


class ReleaseSection(Section):
    """How many releases stay, where a second copy goes, and what an archive may unpack to."""

    keep: PositiveInt = 8
    copy_to: Path | None = None
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    max_files: PositiveInt = 10_000
    max_file_mb: PositiveInt = 16_384
    max_total_mb: PositiveInt = 65_536
