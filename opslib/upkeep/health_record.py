"""What one run of the health watch saw and did, and what it leaves to the next."""

import hashlib
from contextlib import suppress
from pathlib import Path

from opslib.core.errors import InputError, StorageError
from opslib.core.locks import host_lock_path
from opslib.core.records import Record
from opslib.upkeep.health_rules import HOUR_S, ActionName, HealthState, Layer, Reason
from opslib.upkeep.notices import Notice
from opslib.upkeep.probe import CheckResult


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
        if self.layer is not None:
            seen += f" | layer {self.layer}"
            if self.internal_failures + self.external_failures:
                seen += f" | failures {self.internal_failures}/{self.external_failures}"
        return f"{seen} | {', '.join(self.actions)}" if self.actions else seen


class WatchMemory(Record):
    """What survives between runs: counts, incident, restarts, and notices not yet delivered."""

    schema_name = "health-watch"

    decisions: HealthState = HealthState()
    undelivered: tuple[Notice, ...] = ()
    trouble_told_s: int | None = None
    kept_at_s: int = 0
    alone: bool = False


def second_path(path: Path) -> Path:
    """Return where the state at `path` is kept a second time: in the account's own temporary
    folder, on another disk as a rule; `StorageError` where that is not this account's alone."""
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return host_lock_path(f"health-{name}").with_suffix(".json")


def read_memory(path: Path, now_s: int) -> tuple[WatchMemory, str | None]:
    """Return what the last run left, and a note where it could not be read.

    The second memory counts where the last run, within an hour, could write no other. A damaged
    file is set aside beside itself and counting starts anew: a watch that refuses to run watches
    nothing.
    """
    memory, note, second = WatchMemory(), None, None
    with suppress(InputError, StorageError):
        found = WatchMemory.read(second_path(path))
        if found.alone and abs(now_s - found.kept_at_s) < HOUR_S:
            second = found
    try:
        memory = WatchMemory.read(path) if path.exists() else memory
    except InputError as error:
        aside = path.with_name(path.name + ".damaged")
        note = f"{error}; set aside as {aside.name}, counting starts anew"
        try:
            path.replace(aside)
        except OSError as failure:
            note = f"{error}; counting starts anew ({failure.strerror})"
    return second if second and second.kept_at_s >= memory.kept_at_s else memory, note


def keep_memory(path: Path, memory: WatchMemory) -> tuple[str, bool]:
    """Keep what survives to the next run; return '' or why not at `path`, and whether it is kept.

    On a full disk it is written where the last run's lies, without what is not delivered yet if
    only so it fits; where not even that works, in a second place.
    """
    why = memory.keep(path)
    if not (why and memory.model_copy(update={"undelivered": ()}).keep(path)):
        with suppress(OSError, StorageError):
            second_path(path).unlink(missing_ok=True)
        return "", True
    try:
        second = memory.model_copy(update={"alone": True}).write(second_path(path))
    except StorageError as error:
        act = "something is done in the first minute of an hour alone"
        return f"nothing can be remembered: {why}; {error}; {act}", False
    return f"{why}; it is kept in {second}", True
