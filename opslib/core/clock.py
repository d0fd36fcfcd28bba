"""What a wrong clock dated: after now, and so neither the newest of its kind nor counted.

Names and modification times say what a clock said when they were written. One that was ahead and
was repaired leaves things from the future behind: they are passed over, never deleted for their
age, and told to a person.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from opslib.core.formatting import utc_now
from opslib.core.language import mark

SKEW = timedelta(minutes=5)  # clocks of hosts that share a folder differ by less
ASK = mark("is the clock right?")
T = TypeVar("T")


def is_ahead(moment: datetime | float | None, now: datetime | None = None) -> bool:
    """Return whether a moment lies after now by more than clocks differ; an unknown one does not.
    `moment`: aware, or Unix seconds as a file system has them. `now`: the current time by
    default."""
    if moment is None:
        return False
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return seconds > ((now or utc_now()) + SKEW).timestamp()


def parse_moment(text: str) -> datetime | None:
    """Return the moment that a record's ISO text or a file name's stamp says, or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def part_ahead(
    things: Iterable[T],
    moment_of: Callable[[T], datetime | float | None],
    now: datetime | None = None,
) -> tuple[list[T], list[T]]:
    """Return the things that are not dated after now, and those that are, each in their order."""
    moment = now or utc_now()
    here: list[T] = []
    ahead: list[T] = []
    for one in things:
        (ahead if is_ahead(moment_of(one), moment) else here).append(one)
    return here, ahead
