"""How long ago something was, and that said in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from opslib.core.clock import ASK, SKEW, parse_moment
from opslib.core.formatting import plural

DAY_S = 86_400.0


def age_days(moment_utc: str, now: datetime) -> float | None:
    """Return the days from `moment_utc` (ISO) to `now`, or None where it is no moment."""
    moment = parse_moment(moment_utc)
    return None if moment is None else (now - moment).total_seconds() / DAY_S


def describe_age(days: float | None) -> str:
    """Return an age in the unit that matters: `3 hours ago`, `12 days ago`."""
    if days is None:
        return "at an unknown time"
    if days * DAY_S < -SKEW.total_seconds():
        return f"dated {describe_days(-days)} in the future: {ASK}"
    return f"{describe_days(max(days, 0.0))} ago"


def tell_ahead(noun: str, names: Sequence[str]) -> str | None:
    """Return that these are dated after now and no evidence of anything, or None for none."""
    if not names:
        return None
    return f"passed over, dated after now: {plural(len(names), noun)}, {names[0]}: {ASK}"


def describe_days(days: float) -> str:
    """Return a number of days in the unit that matters: `40 minutes`, `3 hours`, `12 days`."""
    if days < 1 / 24:
        return plural(round(days * 24 * 60), "minute")
    if days < 2:
        return plural(round(days * 24), "hour")
    return plural(round(days), "day")
