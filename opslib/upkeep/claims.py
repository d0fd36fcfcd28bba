"""Taking what services may load away from them: hidden first, then asked about, then deleted."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TypeVar

from opslib.core.errors import StorageError, storage_errors
from opslib.core.files import fsync_folder, hide_name
from opslib.core.plans import Action
from opslib.upkeep.in_use import InUse, find_in_use
from opslib.upkeep.rounds import Round

LOTS = 16
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Claim:
    """A model or folder to be deleted: the path that it is known by, why it is in use (asked with
    what is in use and where it lies at that moment), and what raises `StorageError` where it is not
    the one that was planned for. `hidden` is where a killed run left it."""

    path: Path
    find_use: Callable[[InUse, Path], str | None]
    check: Callable[[], None] = lambda: None
    hidden: Path | None = None

    @property
    def target(self) -> Path:
        """What is deleted, as the plan shows it."""
        return self.hidden or self.path


class Claims:
    """The claims of one duty, in the order in which they will be taken.

    To ask what is in use costs more the more there is, and there are as many deletions, so that a
    question for each would cost the square. Therefore a sixteenth of them is hidden at once and one
    question asked for all: whoever says before it that it uses one of them gets it back, and
    whoever says so later finds it gone before it has used it.
    """

    def __init__(self, this: Round) -> None:
        self._this = this
        self._planned: list[Claim] = []
        self._taken: dict[Claim, Path | StorageError] = {}

    def plan(
        self, claim: Claim, delete: Callable[[Claim, Path], None], why: str, frees_bytes: int
    ) -> Action:
        """Return the step that takes what is claimed, behind those before it, and gives `delete`
        where it lies hidden."""
        self._planned.append(claim)
        target = self._this.name_of(claim.target)
        return Action("delete", target, why, lambda: delete(claim, self.take(claim)), frees_bytes)

    def take(self, claim: Claim) -> Path:
        """Return where what was claimed lies hidden; it is nobody's from now on. Raises
        `StorageError` where it is in use (and has its name), it is not known what is in use, it
        changed after the plan was made, or the disk refuses."""
        if claim not in self._taken:
            self._take_lot(claim)
        outcome = self._taken.pop(claim)
        if isinstance(outcome, StorageError):
            raise outcome
        return outcome

    def _take_lot(self, first: Claim) -> None:
        start = self._planned.index(first)
        lot = self._planned[start : start + ceil(len(self._planned) / LOTS)]
        before = _attempt(lambda: find_in_use(self._this))
        if isinstance(before, StorageError):
            self._taken.update(dict.fromkeys(lot, before))
            return
        for claim in lot:
            self._taken[claim] = _attempt(partial(self._hide, claim, before))
        after = _attempt(lambda: find_in_use(self._this, before.live))
        for claim in lot:
            hidden = self._taken[claim]
            if isinstance(hidden, Path):
                self._taken[claim] = _attempt(partial(self._ask, claim, hidden, after))

    def _hide(self, claim: Claim, in_use: InUse) -> Path:
        if claim.hidden is not None:
            return claim.hidden
        self._this.find_folder(claim.path.parent)
        why = claim.find_use(in_use, claim.path)
        if why is not None:
            raise StorageError(f"it is in use by now: {why}")
        hidden = hide_name(claim.path, "deleted")
        with storage_errors(f"delete {self._this.name_of(claim.path)}"):
            claim.check()
            claim.path.rename(hidden)
            fsync_folder(claim.path.parent)
        return hidden

    def _ask(self, claim: Claim, hidden: Path, in_use: InUse | StorageError) -> Path:
        """Give what was hidden its name back unless it is known to be nobody's."""
        unknown = isinstance(in_use, StorageError)
        why = str(in_use) if isinstance(in_use, StorageError) else claim.find_use(in_use, hidden)
        if why is None:
            return hidden
        with storage_errors(f"put back {claim.path.name}"):
            if os.path.lexists(claim.path):
                raise FileExistsError(17, "another of that name is there", str(claim.path))
            hidden.rename(claim.path)
            fsync_folder(claim.path.parent)
        was = "was" if unknown else "is in use by now and was"
        raise StorageError(f"it {was} put back: {why}")


def _attempt(step: Callable[[], T]) -> T | StorageError:
    try:
        with storage_errors("delete"):
            return step()
    except StorageError as error:
        return error
