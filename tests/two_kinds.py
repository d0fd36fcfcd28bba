"""Walks at random through what is done to a service with two kinds of models, and what must never
come of it: a model deleted that is needed, a model switched to where it does not belong.

The steps are the functions that the command line calls; what must hold is worked out here anew,
from the files and from what the service has really loaded.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from dotenv import dotenv_values

from opslib.core.errors import ExitCode, OpsError
from opslib.inference import trial_child
from opslib.ops.release.model_command import rollback
from opslib.serving.command import reload
from opslib.upkeep.maintain_command import maintain
from tests.two_stage import (
    CLASSIFICATION,
    DETECTION,
    FIRST_DAY,
    HOUR_S,
    KINDS,
    TwoStage,
    TwoStageService,
    make_two_stage,
    write_detector,
)

KEEP = 2
EXTRA = f"maintenance: {{keep_onnx: {KEEP}, version_timeout_s: 0.2}}\n"
TIMEOUT_S = 0.4
ACTIONS = ("export", "link", "pin", "reload", "rollback", "maintain", "restart")
WEIGHTS = (4, 2, 3, 4, 4, 4, 1)
MODES = ("up", "up", "up", "up", "down", "hangs", "fails", "lies", "renamed", "missing")
PICKS = 1000
MUTE = ("hangs", "fails", "renamed")


@dataclass(frozen=True)
class Step:
    """One step: what is done, to which kind, with which of many choices, on what a service."""

    action: str
    kind: str
    pick: int
    mode: str


def choose_steps(rng: random.Random, count: int) -> list[Step]:
    """Return steps chosen at random."""
    actions = rng.choices(ACTIONS, WEIGHTS, k=count)
    return [
        Step(action, rng.choice(KINDS), rng.randrange(PICKS), rng.choice(MODES))
        for action in actions
    ]


@dataclass
class Seen:
    """What came of walks: what was done, and everything that should not have been."""

    steps: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    deleted: int = 0
    wrong_switches: list[str] = field(default_factory=list)
    wrong_deletions: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """All of it."""
        return [*self.wrong_switches, *self.wrong_deletions, *self.broken]


def walk(folder: Path, steps: Sequence[Step], seen: Seen) -> None:
    """Take these steps in a new experiment in `folder`, and note in `seen` what came of them."""
    place = make_two_stage(folder, each=4, extra=EXTRA)
    with place.serve() as service, _trials_here():
        walker = Walker(place, service, seen)
        for number, step in enumerate(steps, start=1):
            walker.where = f"step {number}, {step}"
            walker.take(step)


@contextmanager
def _trials_here() -> Iterator[None]:
    """Load models on trial in this process: they are harmless, and a child takes half a second."""
    import onnxruntime

    def run(_path: Path, folder: Path, _limits: object) -> int:
        request = json.loads((folder / "request.json").read_text())
        try:
            answer = trial_child.try_model(onnxruntime, folder, request)
        except Exception as error:
            answer = {"error": str(error)}
        (folder / "answer.json").write_text(json.dumps(answer))
        return 0

    with patch("opslib.inference.trial._run_child", run):
        yield


class Walker:
    """Takes steps and looks at what came of each.

    `truth` says of each model of which kind it really is, whatever its name says.
    """

    def __init__(self, place: TwoStage, service: TwoStageService, seen: Seen) -> None:
        self.place, self.service, self.seen = place, service, seen
        self.truth = {path: kind for kind in KINDS for path in place.models[kind]}
        self.next = len(place.detectors)
        self.where = "the start"

    def take(self, step: Step) -> None:
        """Take one step."""
        self.seen.steps[step.action] += 1
        getattr(self, f"_{step.action}")(step)
        for kind, path in self.service.live.items():
            if path is None or self.truth[path] != kind:
                self._blame(self.seen.wrong_switches, f"{path} is served as {kind}")

    def _export(self, step: Step) -> None:
        path = self.place.export_model(step.kind, self.next)
        self.truth[path] = step.kind
        moment = path.stat().st_mtime
        if step.kind == CLASSIFICATION and step.pick % 3 == 0:  # a detector under its name
            write_detector(path, seed=self.next)
            self.truth[path] = DETECTION
        if step.pick % 2:  # copied from elsewhere, with a date among those that are there
            moment = FIRST_DAY + (step.pick % self.next + 0.5) * HOUR_S
        os.utime(path, (moment, moment))
        self.next += 1

    def _link(self, step: Step) -> None:
        self.place.link(step.kind, _pick(self._good(step.kind), step.pick))

    def _pin(self, step: Step) -> None:
        pins = self._pins() | {step.kind: None}
        if step.pick % 3:
            path = _pick(self._good(step.kind), step.pick)
            pins[step.kind] = path.relative_to(self.place.root) if step.pick % 2 else path
        self.place.pin(**pins)

    def _restart(self, _step: Step) -> None:
        self.service.stop()
        self.service.start()

    def _reload(self, step: Step) -> None:
        path = _pick(sorted(self.truth), step.pick)
        if step.pick % 5 == 0:
            path = self.place.export / f"latest_{step.kind}.onnx"
        real = path.resolve()
        named = step.kind if step.pick % 2 else None
        kind = _kind_of(real)
        right = self.truth[real] == kind and named in (None, kind)
        before = self.service.live
        code = self._try(
            step.mode,
            kind,
            lambda: reload(
                path, kind=named, timeout=TIMEOUT_S, persist=step.pick % 7 == 0, config=self._config
            ),
        )
        self._look_at_switch(step, kind, before, {real} if right else set(), code)
        if right and step.mode in ("up", "missing") and code != 0:
            self._blame(self.seen.broken, f"{real.name} was refused with {code}")

    def _rollback(self, step: Step) -> None:
        named = step.kind if step.pick % 9 else None
        before = self.service.live
        live = None if step.mode == "missing" else before[step.kind]
        wanted = self._find_stable(step.kind, live) if named else None
        code = self._try(
            step.mode,
            step.kind,
            lambda: rollback(
                kind=named, timeout=TIMEOUT_S, persist=step.pick % 2 == 0, config=self._config
            ),
        )
        self._look_at_switch(step, step.kind, before, {wanted} if wanted else set(), code)
        if named is None and code != ExitCode.USAGE:
            self._blame(self.seen.broken, f"a rollback of no kind ended with {code}")
        if wanted is not None and step.mode in ("up", "missing") and code != 0:
            self._blame(self.seen.broken, f"no way back to {wanted.name}: {code}")

    def _maintain(self, step: Step) -> None:
        before = self._dated()
        up = step.mode in ("up", "lies", "missing")
        served = self.service.live if up else {}
        if step.mode == "missing":
            served = served | {step.kind: None}
        needed = {kind: self._needed(kind, served.get(kind)) for kind in KINDS}
        code = self._try(
            step.mode, step.kind, lambda: maintain(clock_is_right=True, config=self._config)
        )
        after = self._dated()
        gone = before.keys() - after.keys()
        self.seen.deleted += len(gone)
        if step.mode in MUTE and (gone or code != ExitCode.SKIPPED):
            self._blame(self.seen.wrong_deletions, f"{code}, not known what is served: {gone} gone")
        if up and code != 0:
            self._blame(self.seen.broken, f"maintenance ended with {code}")
        for kind in KINDS:
            for path in gone & needed[kind].keys():
                self._blame(self.seen.wrong_deletions, f"{path.name}: {needed[kind][path]}")
            left = [path for path in after if _kind_of(path) == kind]
            lost = [path for path in gone if _kind_of(path) == kind]
            if lost and len(left) < KEEP:
                self._blame(self.seen.wrong_deletions, f"{len(left)} of kind {kind} are left")
            if up and len(left) > max(KEEP, len(needed[kind])):
                self._blame(self.seen.broken, f"{len(left)} of kind {kind} are kept")
        for path in gone:
            del self.truth[path]

    @property
    def _config(self) -> Path:
        return self.place.config_path

    def _try(self, mode: str, kind: str, command: Callable[[], int]) -> int:
        """Run a command on a service in this mode; return its exit code."""
        service, said = self.service, StringIO()
        with self._as(mode, kind), redirect_stdout(said), redirect_stderr(said):
            try:
                code = command()
            except OpsError as error:
                code = int(error.exit_code)
                if "\n" in str(error):
                    self._blame(self.seen.broken, f"more than one line: {error}")
            except Exception as error:
                self._blame(self.seen.broken, f"{type(error).__name__}: {error}")
                code = -1
        if mode == "missing" and service.live[kind] is None:
            service.stop()
            service.start()
        return code

    @contextmanager
    def _as(self, mode: str, kind: str) -> Iterator[None]:
        service = self.service
        if mode == "down":
            service.stop()
        elif mode in ("hangs", "fails"):
            service.version_answer = mode  # type: ignore[assignment]
        elif mode == "renamed":
            service.fields = {f"{one}_model_path": one for one in KINDS}
        elif mode == "missing":
            service.models[kind] = None
        service.lies = mode == "lies"
        try:
            yield
        finally:
            service.version_answer, service.fields, service.lies = "says", {}, False
            if mode == "down":
                service.start()

    def _look_at_switch(
        self,
        step: Step,
        kind: str,
        before: dict[str, Path | None],
        allowed: set[Path],
        code: int,
    ) -> None:
        now = self.service.live
        switched = [one for one in KINDS if now[one] != before[one]]
        self.seen.switches += len(switched)
        if step.mode == "down" or (step.mode == "missing" and code != 0):
            return  # it was started again, with what is pinned or linked
        if set(switched) - {kind}:
            self._blame(self.seen.wrong_switches, f"{switched} instead of {kind}")
        if kind in switched and now[kind] not in allowed:
            self._blame(self.seen.wrong_switches, f"{now[kind]} instead of one of {allowed}")
        if code == 0 and now[kind] not in allowed:
            self._blame(self.seen.wrong_switches, f"a success that serves {now[kind]}")

    def _find_stable(self, kind: str, live: Path | None) -> Path | None:
        """The newest good model that is no newer than the live one, else the newest of all."""
        dated = self._dated()
        good = [path for path in self._good(kind) if path != live]
        good.sort(key=lambda path: (dated[path], path.name), reverse=True)
        older = [path for path in good if live is None or dated[path] <= dated[live]]
        return next(iter([*older, *good]), None)

    def _needed(self, kind: str, live: Path | None) -> dict[Path, str]:
        """Models that no maintenance may delete, and why."""
        dated = {path: when for path, when in self._dated().items() if _kind_of(path) == kind}
        pinned = self._pins()[kind]
        found = {
            (self.place.export / f"latest_{kind}.onnx").resolve(): "linked",
            max(dated, key=lambda path: (dated[path], path.name)): "the newest",
            max(dated, key=lambda path: path.name): "the newest by name",
        }
        if live is not None:
            found[live] = "live"
        if pinned is not None:
            found[(self.place.root / pinned).resolve()] = "pinned"
        return found

    def _dated(self) -> dict[Path, float]:
        models = [path for path in self.place.export.glob("*.onnx") if not path.is_symlink()]
        return {path: path.stat().st_mtime for path in models}

    def _good(self, kind: str) -> list[Path]:
        """Models that are of this kind by name and in truth."""
        return sorted(path for path, true in self.truth.items() if true == kind == _kind_of(path))

    def _pins(self) -> dict[str, Path | None]:
        written = dotenv_values(self.place.root / ".env")
        said = {kind: written.get(f"{kind.upper()}_MODEL_PATH") for kind in KINDS}
        return {kind: Path(path) if path else None for kind, path in said.items()}

    def _blame(self, where: list[str], what: str) -> None:
        where.append(f"{self.where}: {what}")


def _kind_of(path: Path) -> str:
    """The kind that a model is of by its name."""
    return path.name.partition("-")[0]


def _pick(paths: Sequence[Path], pick: int) -> Path:
    return paths[pick % len(paths)]
