"""The checklist's thresholds: what is healthy, what wants attention and what has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from opslib.core.sections import FilePattern, PositiveInt, Section


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_split_commas)]
LogPatterns = Annotated[
    tuple[FilePattern, ...], BeforeValidator(_split_commas), Field(min_length=1)
]
Positive = Annotated[float, Field(gt=0)]
Percent = Annotated[float, Field(gt=0, le=100)]


class ChecklistSection(Section):
    """Where the checklist looks and from which value on an item is no longer `ok`.

    Units: `_s` seconds, `_h` hours, `_days` days, `_pct` percent, `_mb` MiB.
    """

    timeout_s: Positive = 5.0
    api_logs: LogPatterns = ("api.err",)
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
        if self.disk_attention_pct > self.disk_failed_pct:
            raise ValueError("expected disk_attention_pct to be at most disk_failed_pct")
        if self.regression_attention_pct > self.regression_failed_pct:
            raise ValueError(
                "expected regression_attention_pct to be at most regression_failed_pct"
            )
        return self
