"""Random sequences of everything that makes, uses and deletes; what is needed stays, and whatever
was killed can be finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from opslib.core.errors import BusyError, ModelError, SkippedError, StorageError
from opslib.ops.release.command import prune
from opslib.ops.release.restore import restore_release
from opslib.ops.release.store import pin_release
from opslib.upkeep.maintenance import plan_maintenance
from tests.deletions.needs import (
    find_halves,
    find_leftovers,
    find_missing,
    find_needs,
    list_models,
    read,
)
from tests.deletions.template import open_world
from tests.deletions.things import DAY_S, Fate, Instance, Model, Outcome, Release

# What persons were seen to type, beside the names that our writers make.
PERSONAL = (
    "checkpoints/.best.pt.20260930",
    "checkpoints/best_of_march.pt",
    ".served.json.20261001",
    "export/.model.onnx.bak_0410",
    "export/notes.txt",
    "logs/.api.out.old_2026",
    "releases/.pins.json.before_7",
    "releases/README.md",
    "reports/.metrics.json.backup_1",
    "reports/metrics.old.json",
)
LATER_DAYS = (0.02, 0.5, 3.0, 8.0, 16.0, 40.0)
WRONG_DAYS = (1500.0, -1500.0, 9000.0, -400.0, 0.3, -0.3)
OPERATIONS = st.integers(0, 12) | st.integers(0, 60)
FATES = st.one_of(
    st.just(Fate()),
    st.builds(Fate, dies_at=OPERATIONS, torn=st.booleans()),
    st.builds(Fate, dies_at=OPERATIONS, torn=st.booleans()),
    st.builds(Fate, full_from=OPERATIONS),
)
INDEX = st.integers(0, 30)
tally: Counter[str] = Counter()


def count_life(job: str, outcome: Outcome) -> None:
    """Count what befell a job, for the table of a long run."""
    tally[f"jobs: {job}"] += 1
    tally["operations"] += len(outcome.life.done)
    if outcome.life.dead:
        tally["deaths"] += 1
        tally[f"deaths in {job}"] += 1


class Deletions(RuleBasedStateMachine):
    """One experiment, or three that share their models, and all that may happen to them."""

    @initialize(kind=st.sampled_from(("lived in", "busy", "empty")), shared=st.booleans())
    def begin(self, kind: Any, shared: bool) -> None:
        self.world = open_world(kind, shared=shared)
        tally["sequences"] += 1

    # Those who make things

    @rule(weights=st.booleans(), card=st.booleans(), link=st.booleans(), fate=FATES)
    def export(self, weights: bool, card: bool, link: bool, fate: Fate) -> None:
        number = self.world.made
        last = f"last_of_{number}.pt" if card else None
        if last:
            self._age(f"checkpoints/{last}", 0.0, 14)
        self.check(
            "export",
            lambda: self.world.export_model(
                weights=weights, card=card, link=link, checkpoint=last, fate=fate
            ),
        )

    @rule(which=INDEX, fate=FATES)
    def release(self, which: int, fate: Fate) -> None:
        outcome = self.check("release", lambda: self.world.release(self.first, fate))
        assert outcome.error is None or isinstance(outcome.error, (ModelError, StorageError))

    @rule(which=INDEX, fate=FATES)
    def restore(self, which: int, fate: Fate) -> None:
        release = self._release(which)
        if release is not None:
            work = partial(
                restore_release, release.path, config=self.first.config, load_models=False
            )
            self.check("restore", lambda: self.world.run(work, fate))

    @rule(days=st.sampled_from((0.0, 5.0, 9.0, 20.0, 40.0, 400.0)), what=st.integers(0, 4))
    def leave_behind(self, days: float, what: int) -> None:
        """Logs, archives, checkpoints, records and reports, some of them old already."""
        number = self.world.next_number()
        name, limit = (
            (f"logs/job{number}.out", 30.0),
            (f"logs/archive/old{number}.out.gz", 30.0),
            (f"checkpoints/last_{number}.pt", 14.0),
            (f"reports/checklist_daily_20240101-{number:06d}.json", 365.0),
            (f"quantized/model-{number}/int8.onnx", 30.0),
        )[what]
        self._age(name, days, limit)

    @rule(name=st.sampled_from(PERSONAL), days=st.sampled_from((0.0, 400.0)))
    def write_by_hand(self, name: str, days: float) -> None:
        path = self.first.exp / name
        if name.startswith("export/"):
            path = self.world.export / name.removeprefix("export/")
        self.world.put(path, name.encode(), days)
        self.world.person[path] = name.encode()

    # Those who use things

    @rule(which=INDEX)
    def link(self, which: int) -> None:
        model = self._model(which)
        if model is not None:
            link = self.world.export / "stable.onnx"
            link.unlink(missing_ok=True)
            link.symlink_to(model.path.name)

    @rule(who=INDEX, which=INDEX, fate=FATES)
    def serve(self, who: int, which: int, fate: Fate) -> None:
        model = self._model(which)
        if model is not None:
            self.check("serve", lambda: self.world.serve(self._instance(who), model, fate))

    @rule(who=INDEX, what=st.sampled_from(("stopped", "killed", "hung", "mute")))
    def trouble(self, who: int, what: Any) -> None:
        instance = self._instance(who)
        if what == "stopped" and instance.serving is not None:
            self.check("stop", lambda: self.world.stop(instance))
        elif what == "killed":
            self.world.kill(instance)
        elif instance.serving is not None:
            instance.answer = what

    @rule(who=INDEX, which=st.none() | INDEX)
    def set_model_path(self, who: int, which: int | None) -> None:
        instance = self._instance(who)
        model = self._model(which) if which is not None else None
        instance.pin = model.path if model else None
        line = f"MODEL_PATH={instance.pin}\n" if instance.pin else ""
        self.world.put(instance.folder / ".env", line.encode())

    @rule(which=INDEX, pinned=st.booleans(), fate=FATES)
    def pin(self, which: int, pinned: bool, fate: Fate) -> None:
        release = self._release(which)
        if release is not None:
            work = partial(pin_release, self.first.config, release.name, pinned=pinned)
            outcome = self.check("pin", lambda: self.world.run(work, fate))
            pins = read(self.first.exp / "releases" / "pins.json")
            release.pinned = pins is not None and release.name.encode() in pins
            assert outcome.life.dead or outcome.error or release.pinned == pinned

    # Those who delete

    @rule(who=INDEX, fate=FATES, again=st.booleans(), sure=st.booleans())
    def maintain(self, who: int, fate: Fate, again: bool, sure: bool) -> None:
        acting = self._instance(who)
        run = partial(self.world.maintain, acting, sure=sure)
        self.clean("maintain", run, acting, fate, again)

    @rule(fate=FATES, again=st.booleans())
    def prune(self, fate: Fate, again: bool) -> None:
        self.clean("prune", self._prune, self.first, fate, again)

    # The world around

    @rule(days=st.sampled_from(LATER_DAYS), who=INDEX, fate=FATES, sure=st.booleans())
    def later(self, days: float, who: int, fate: Fate, sure: bool) -> None:
        """Time goes by, and the nightly round begins."""
        self.world.clock.true_s += days * DAY_S
        self.maintain(who, fate, True, sure)

    @rule(days=st.sampled_from((0.0, *WRONG_DAYS)))
    def jump(self, days: float) -> None:
        """The host's clock goes wrong by so much, or is repaired."""
        self.world.clock.error_s = days * DAY_S

    @rule(days=st.sampled_from(WRONG_DAYS), what=INDEX, fate=FATES)
    def work_under_wrong_clock(self, days: float, what: int, fate: Fate) -> None:
        """Something is made before anybody notices; then the clock is repaired."""
        self.jump(days)
        if what % 3 == 0:
            self.export(weights=True, card=True, link=False, fate=fate)
        elif what % 3 == 1:
            self.release(what, fate)
        else:
            self.leave_behind(0.0, what % 5)
        self.jump(0.0)

    @rule(days=st.sampled_from(WRONG_DAYS), who=INDEX, fate=FATES)
    def clean_under_wrong_clock(self, days: float, who: int, fate: Fate) -> None:
        """The nightly round begins before anybody notices; then the clock is repaired."""
        self.jump(days)
        self.maintain(who, fate, again=True, sure=False)
        self.jump(0.0)

    @rule(full=st.booleans())
    def fill_disk(self, full: bool) -> None:
        self.world.full = full

    # What must hold

    def check(
        self, job: str, run: Callable[[], Outcome], acting: Instance | None = None
    ) -> Outcome:
        """Run a job and see that nothing needed is gone, and that no lock is stuck."""
        needs = find_needs(self.world, acting or self.first)
        outcome = run()
        count_life(job, outcome)
        assert not find_missing(self.world, needs), find_missing(self.world, needs)
        assert not isinstance(outcome.error, BusyError), outcome.error
        assert not find_halves(self.world), find_halves(self.world)
        return outcome

    def clean(
        self,
        name: str,
        run: Callable[[Fate], Outcome],
        acting: Instance,
        fate: Fate | None = None,
        again: bool = False,
    ) -> None:
        """Run a deleting job; a killed one is finished by a second run, or later."""
        fate = fate or Fate()
        outcome = self.check(name, lambda: run(fate), acting)
        if outcome.life.dead and again:
            outcome = self.check(name, lambda: run(Fate()), acting)
        if outcome.error is not None and not isinstance(outcome.error, SkippedError):
            assert isinstance(outcome.error, StorageError), outcome.error
            assert name == "prune", outcome.error
            unsure = self.world.full or fate.full_from is not None
            silent = any(one.answer in ("hung", "mute") for one in self.world.instances)
            assert unsure or silent, outcome.error

    def teardown(self) -> None:
        """In peace nothing is left over after two rounds, and nothing that is needed is missing."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.clock.error_s, world.full = 0.0, False
        for instance in world.instances:
            if instance.answer in ("hung", "mute"):
                instance.answer = "up"
        world.clock.true_s += 3 * DAY_S
        self._age("logs/today.out", 0.0, 30.0)
        for instance in world.instances:
            run = partial(world.maintain, instance)
            self.clean("maintain", run, instance)
            if self._what_is_left(instance):  # a dead writer's link held a model: it is gone now
                self.clean("maintain", run, instance)
            assert not self._what_is_left(instance), self._what_is_left(instance)
        self.clean("prune", self._prune, self.first)
        assert not find_leftovers(world), find_leftovers(world)

    def _prune(self, fate: Fate) -> Outcome:
        return self.world.run(partial(prune, config=self.first.config_path), fate)

    def _what_is_left(self, instance: Instance) -> list[str]:
        """The steps of the next round."""
        left: list[str] = []

        def look() -> None:
            left.extend(plan_maintenance(instance.config).plan.lines()[1:])

        self.world.run(look, host=instance.host)
        return left

    @property
    def first(self) -> Instance:
        return self.world.instances[0]

    def _instance(self, which: int) -> Instance:
        return self.world.instances[which % len(self.world.instances)]

    def _model(self, which: int) -> Model | None:
        there = list_models(self.world)
        return there[which % len(there)] if there else None

    def _release(self, which: int) -> Release | None:
        there = [one for one in self.world.releases.values() if one.path.exists()]
        return there[which % len(there)] if there else None

    def _age(self, name: str, days: float, limit_days: float) -> None:
        """Write something that may go when it is old."""
        self.world.leave(self.first.exp / name, days, limit_days)


def run_sequences(count: int, steps: int, *, seed: int | None = None) -> None:
    """Run this many sequences: the same ones each time, or those of a seed.

    Raises:
        AssertionError: something needed was deleted, or something killed could not be finished.
    """
    machine: type[Deletions] = Deletions
    if seed is not None:
        machine = type("Deletions", (Deletions,), {"_hypothesis_internal_use_seed": seed})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count,
            stateful_step_count=steps,
            derandomize=seed is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # a story is told as it was: making it short takes minutes
        ),
    )
