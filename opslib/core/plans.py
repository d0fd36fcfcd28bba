"""Plan, show, execute: the one way in which this project deletes or replaces anything."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from opslib.core.errors import StorageError
from opslib.core.formatting import format_bytes, plural


@dataclass(frozen=True)
class Action:
    """One step of a plan: what happens to which target, why, and how many bytes it frees."""

    verb: str
    target: str
    why: str
    run: Callable[[], None] = field(repr=False)
    frees_bytes: int = 0

    def describe(self) -> str:
        """Return the step as one line."""
        size = f" ({format_bytes(self.frees_bytes)})" if self.frees_bytes else ""
        return f"{self.verb} {self.target}{size}: {self.why}"


@dataclass(frozen=True)
class Skipped:
    """A step that failed, and the reason."""

    action: Action
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a plan did: finished steps, skipped steps, bytes freed."""

    done: tuple[Action, ...]
    skipped: tuple[Skipped, ...]

    @property
    def freed_bytes(self) -> int:
        """Bytes freed by the finished steps."""
        return sum(action.frees_bytes for action in self.done)


class Account(Protocol):
    """What is told of each step while a plan is carried out, so that a kill leaves an account."""

    def begin(self, step: Action) -> None:
        """Hear that a step begins."""

    def end(self, step: Action, skipped: str | None) -> None:
        """Hear that it ended, or why it was skipped."""


@dataclass(frozen=True)
class Plan:
    """Steps decided before anything is touched; show them, then execute them in order. `chained`:
    each needs those before it, so that none is run after one that was skipped."""

    title: str
    actions: tuple[Action, ...] = ()
    chained: bool = False

    def lines(self) -> list[str]:
        """Return the plan as the lines a person reads before agreeing."""
        if not self.actions:
            return [f"{self.title}: nothing to do"]
        head = f"{self.title}: {plural(len(self.actions), 'step')}"
        return [head, *(f"  {action.describe()}" for action in self.actions)]

    def execute(self, account: Account | None = None) -> Outcome:
        """Run the steps in order; one that the disk refuses is skipped with its reason. `account`:
        hears of each step as it begins and ends."""
        done: list[Action] = []
        skipped: list[Skipped] = []
        for action in self.actions:
            if self.chained and skipped:
                skipped.append(Skipped(action, f"{skipped[0].action.target} was skipped before it"))
                continue
            reason = None
            if account is not None:
                account.begin(action)
            try:
                action.run()
            except (OSError, StorageError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                skipped.append(Skipped(action, reason))
            else:
                done.append(action)
            if account is not None:
                account.end(action, reason)
        return Outcome(tuple(done), tuple(skipped))


def carry_out(plan: Plan, *, dry_run: bool, show: Callable[[str], None]) -> Outcome:
    """Show `plan` line by line and, unless `dry_run`, execute it and return what it did."""
    for line in plan.lines():
        show(line)
    if dry_run:
        show("dry run: nothing was changed")
        return Outcome((), ())
    return plan.execute()
