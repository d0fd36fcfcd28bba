"""Times, sizes and quantities as people read them, each written one way only."""

import re
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

STAMP_FORMAT = "%Y%m%d-%H%M%S"
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def now_text() -> str:
    """Return the current time in UTC as records keep it, to the second."""
    return utc_now().isoformat(timespec="seconds")


def stamp(moment: datetime | None = None) -> str:
    """Return `moment` (now by default) as `%Y%m%d-%H%M%S` in UTC, as used in file names."""
    return (moment or utc_now()).astimezone(UTC).strftime(STAMP_FORMAT)


def format_bytes(size_bytes: float) -> str:
    """Return a size in binary units with three significant digits: `1.46 MiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            whole = unit == "B" or abs(size) >= 999.5  # `.3g` would write 1.02e+03
            return f"{size:.0f} {unit}" if whole else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def format_ms(value_ms: float | None) -> str:
    """Return milliseconds with three significant digits and no exponent, or a dash for None."""
    if value_ms is None:
        return "–"
    if value_ms >= 100:
        return f"{value_ms:.0f}"
    return f"{value_ms:.1f}" if value_ms >= 10 else f"{value_ms:.2f}"


def format_duration(seconds: float) -> str:
    """Return a duration in the two units that matter: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return `1 image`, `2 images`; `many` is the plural that takes more than an s."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def format_signal(number: int) -> str:
    """Return the name of the signal that ended a process, with what it means where few know."""
    name = signal.Signals(number).name
    return f"{name} (a file that it had mapped became shorter)" if name == "SIGBUS" else name


def format_counts(counts: Mapping[str, int]) -> str:
    """Return counts of several kinds in their order: `5 .jpg, 7 .png`."""
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def spell_out(text: str) -> str:
    """Return `text` with lone surrogates (bytes of a name that are no UTF-8) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(text: str, limit: int = 300) -> str:
    """Return a foreign text on one line, without a terminal's colours, cut between words."""
    plain = " ".join(_CONTROL.sub(" ", _COLOUR.sub("", text)).split())
    if len(plain) <= limit:
        return plain
    return f"{plain[:limit].rpartition(' ')[0] or plain[:limit]} …"


def map_texts(value: Any, change: Callable[[str], str], depth: int = 100) -> Any:
    """Return a plain value with the texts in it, also those of paths, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, PurePath):
        return type(value)(change(str(value)))
    if isinstance(value, dict) and depth:
        return {
            map_texts(key, change, depth - 1): map_texts(one, change, depth - 1)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple) and depth:
        return type(value)(map_texts(one, change, depth - 1) for one in value)
    return value
