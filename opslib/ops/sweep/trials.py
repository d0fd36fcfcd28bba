"""Trials: what a sweep knows of one session, kept as soon as it is known.

An interrupted sweep finds its trials again by a key over everything that decides a figure; a
finished sweep leaves none, so that the next one measures anew.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError

from opslib.core.errors import storage_errors
from opslib.core.ownership import open_to_append
from opslib.core.records import Part

TRIALS_NAME = "ort_bench_trials.jsonl"
TrialKind = Literal["refused", "pruned", "survived", "final"]


class Trial(Part):
    """One session's part in a race or in the finals. `times_ms` and `default_ms` are medians of the
    rounds that both ran, pair by pair. `reason` says why a session was refused: it did not load,
    did not run, or did not answer alike."""

    key: str
    kind: TrialKind
    reason: str | None = None
    pruned_at: int | None = None
    provider: str = "none"
    note: str | None = None
    max_abs_diff: float | None = None
    run_delay_pct: float | None = None
    times_ms: tuple[float, ...] = ()
    default_ms: tuple[float, ...] = ()

    def ended(self, kind: TrialKind, **found: Any) -> Self:
        """Return the trial as it ended, with what was found."""
        return self.model_copy(update={"kind": kind, **found})


class TrialBook:
    """Trials by key, of the race and of the finals, appended to one file as they end."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        """Read what an interrupted sweep left at `path`, or forget it."""
        self.path = path
        self._races: dict[str, Trial] = {}
        self._finals: dict[str, Trial] = {}
        self.resumed = 0
        if fresh:
            self.finish()
        for trial in _read(path):
            self._keep(trial)
        self._found = frozenset((*self._races, *(f"{key} final" for key in self._finals)))

    def race(self, key: str) -> Trial | None:
        """Return the race trial of this key, if there is one."""
        return self._races.get(key)

    def final(self, key: str) -> Trial | None:
        """Return the finals trial of this key, if there is one."""
        return self._finals.get(key)

    @property
    def races(self) -> list[Trial]:
        """The race trials."""
        return list(self._races.values())

    def count_found(self, key: str) -> None:
        """Note that a trial of an earlier, interrupted sweep is used."""
        self.resumed += key in self._found

    def save(self, trial: Trial) -> None:
        """Keep a trial, on disk before this returns."""
        self._keep(trial)
        with (
            storage_errors(f"write {self.path}"),
            os.fdopen(open_to_append(self.path), "a", encoding="utf-8") as file,
        ):
            file.write(trial.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget_finals(self, keys: Iterable[str]) -> None:
        """Drop the finals trials of these keys: they are about to be measured together anew."""
        for key in keys:
            self._finals.pop(key, None)

    def finish(self) -> None:
        """Remove the file: nothing is left to resume."""
        with storage_errors(f"remove {self.path}"):
            self.path.unlink(missing_ok=True)

    def _keep(self, trial: Trial) -> None:
        book = self._finals if trial.kind == "final" else self._races
        book[trial.key] = trial


def _read(path: Path) -> list[Trial]:
    """Return the trials of a file; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    with storage_errors(f"read {path}"):
        lines = path.read_text(encoding="utf-8").splitlines()
    trials = []
    for line in lines:
        try:
            trials.append(Trial.model_validate(json.loads(line)))
        except (ValueError, ValidationError):
            continue
    return trials
