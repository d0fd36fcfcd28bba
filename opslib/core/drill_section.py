"""The configuration's section of the rollback drill: how hard it loads, what it must keep to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from opslib.core.sections import PositiveInt, Section

Seconds = Annotated[float, Field(gt=0, le=3600)]


class DrillSection(Section):
    """How the rollback drill loads a service, for how long, and the limits of its verdict."""

    load_share: Annotated[float, Field(gt=0, le=0.9)] = 0.3
    rate_max_per_s: Annotated[float, Field(gt=0, le=5000)] = 200.0
    images: PositiveInt = 64
    capacity_s: Seconds = 4.0
    baseline_s: Seconds = 15.0
    aa_s: Seconds = 15.0
    settle_s: Seconds = 2.0
    swaps: PositiveInt = 5
    p99_ratio_max: Annotated[float, Field(ge=1)] = 1.5
    swap_max_s: Seconds = 60.0
    rollback_max_s: Seconds = 1.0
    stall_max_ms: Annotated[float, Field(gt=0)] = 1000.0
    recovery_max_s: Seconds = 60.0
    rss_growth_max_pct: Annotated[float, Field(gt=0)] = 5.0
    soak_requests: PositiveInt = 20_000
    soak_swaps: PositiveInt = 20
    leak_swaps: Annotated[int, Field(ge=20)] = 200
