"""What one run of the health watch saw and did, and what it leaves to the next."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from opslib.core.errors import InputError, StorageError
from opslib.core.files import overwrite
from opslib.core.records import Record
from opslib.upkeep.health_rules import ActionName, HealthState, Layer, Reason
from opslib.upkeep.notices import Notice
from opslib.upkeep.probe import CheckResult

MAX_UNDELIVERED = 20


class HealthRecord(Record):
    """One run: what answered, which layer failed, what was done and the exit code."""

    schema_name = "health"

    at_utc: str
    internal: CheckResult
    external: CheckResult | None
    layer: Layer | None
    internal_failures: int = 0
    external_failures: int = 0
    actions: tuple[ActionName, ...] = ()
    reason: Reason = ""
    restart: str | None = None
    notices: tuple[Notice, ...] = ()
    exit_code: int = 0

    @property
    def checks(self) -> list[tuple[str, CheckResult]]:
        """The checks that are watched, by name."""
        external = [("external", self.external)] if self.external else []
        return [("internal", self.internal), *external]

    def describe(self) -> str:
        """Return the run as one line of the log."""
        seen = " | ".join(f"{name} {result.describe()}" for name, result in self.checks)
        failed = self.layer is not None
        counted = failed and self.internal_failures + self.external_failures > 0
        counts = f" | failures {self.internal_failures}/{self.external_failures}" if counted else ""
        done = f" | {', '.join(self.actions)}" if self.actions else ""
        layer = f" | layer {self.layer}" if failed else ""
        return f"{seen}{layer}{counts}{done}"


class WatchMemory(Record):
    """What survives between runs: counts, incident, restarts, and notices not yet delivered."""

    schema_name = "health-watch"

    decisions: HealthState = HealthState()
    undelivered: tuple[Notice, ...] = ()

    def with_notices(self, notices: tuple[Notice, ...]) -> WatchMemory:
        """Return the memory with more notices to deliver, the oldest dropped past a limit."""
        kept = (*self.undelivered, *notices)[-MAX_UNDELIVERED:]
        return self.model_copy(update={"undelivered": kept})


def read_memory(path: Path) -> tuple[WatchMemory, str | None]:
    """Return what the last run left, and a note where it could not be read.

    A damaged file is set aside beside itself and counting starts anew: a watch that refuses to
    run watches nothing.
    """
    if not path.exists():
        return WatchMemory(), None
    try:
        return WatchMemory.read(path), None
    except InputError as error:
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
        except OSError as failure:
            return WatchMemory(), f"{error}; counting starts anew ({failure.strerror})"
        return WatchMemory(), f"{error}; set aside as {aside.name}, counting starts anew"


def keep_memory(path: Path, memory: WatchMemory) -> str | None:
    """Keep what survives to the next run, and return None, or why that failed.

    On a full disk it is written where the last run's lies, without what is not delivered yet if
    only so it fits.
    """
    try:
        memory.write(path)
    except StorageError as error:
        for one in (memory, memory.model_copy(update={"undelivered": ()})):
            with suppress(StorageError):
                overwrite(path, one.to_json().encode())
                return None
        return str(error)
    return None
