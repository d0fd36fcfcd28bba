"""The `schedule` section: when each job runs, and who is told that it did."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from opslib.core.secrets import REFERENCE_PREFIX
from opslib.core.sections import SECRET_ERROR, Section

_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_MONTHS = frozenset(re.findall("...", "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"))
_DAYS = frozenset(re.findall("...", "SUNMONTUEWEDTHUFRISAT"))
_NAMES: tuple[frozenset[str], ...] = (frozenset(), frozenset(), frozenset(), _MONTHS, _DAYS)
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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


def _check_reference(value: Any) -> Any:
    """Return a reference `env:NAME`; whatever else it is may be a secret and is not repeated."""
    if value is None:
        return None
    text = value if isinstance(value, str) else ""
    name = text.removeprefix(REFERENCE_PREFIX)
    if not text.startswith(REFERENCE_PREFIX) or not _REFERENCE.fullmatch(name):
        wanted = "expected a reference, env:NAME, to a variable of .env that holds the URL"
        raise PydanticCustomError(SECRET_ERROR, wanted)
    return text


CronExpression = Annotated[str | None, BeforeValidator(_check_cron)]
Reference = Annotated[str | None, BeforeValidator(_check_reference)]


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
