"""What a checklist leaves behind: every item with its evidence, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import StorageError
from opslib.core.formatting import plural, stamp
from opslib.core.lineage import Lineage
from opslib.core.records import Record
from opslib.core.verdicts import Verdict
from opslib.ops.checklist.items import STATES, Item, Period, State

MAX_NAMED = 3
_SAID: dict[State, str] = {
    "failed": "failed",
    "attention": "wants attention",
    "unknown": "could not be checked",
}


class ChecklistRecord(Record):
    """One run of the checklist; the logs were read from `since_utc` on.

    `fail` where an item failed, else `inconclusive` where one wants attention or could not be
    checked: a person has to decide. `pass` where there is nothing to look at.
    """

    schema_name = "checklist"

    verdict: Verdict
    finding: str
    exit_code: int
    lineage: Lineage
    experiment: str
    period: Period
    since_utc: str
    items: tuple[Item, ...]
    wall_s: float

    def count(self, state: State) -> int:
        """Return how many items are in a state."""
        return sum(item.state == state for item in self.items)

    def by_state(self) -> list[Item]:
        """Return the items, the worst first."""
        return sorted(self.items, key=lambda item: STATES.index(item.state))

    def item(self, name: str) -> Item | None:
        """Return the item of a name, or None where this period has no such item."""
        return next((item for item in self.items if item.name == name), None)


def decide(items: Sequence[Item]) -> tuple[Verdict, str]:
    """Return the verdict on `items` and the finding: one sentence, what is worst named first."""
    parts = []
    for state, words in _SAID.items():
        named = [item.title for item in items if item.state == state]
        if named:
            parts.append(f"{_list_names(named)} {_agree(words, len(named))}")
    count = sum(item.state == "ok" for item in items)
    good = f"{plural(count, 'item') if count else 'no item'} {'are' if count > 1 else 'is'} ok"
    finding = f"{'; '.join(parts)}; {good}." if parts else f"all is well, {good}."
    if any(item.state == "failed" for item in items):
        return "fail", finding
    return ("inconclusive" if parts else "pass"), finding


def keep_checklist(record: ChecklistRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/checklist_<period>_<UTC>.json`;
    return where it lies.

    Raises:
        StorageError: there is no such experiment folder: its disk may not be mounted, and a folder
            made in its place would hide that.
    """
    if path is None and not config.exp_dir.is_dir():
        demo = " The demo is made with `make demo`" if config.can_be_demo else ""
        raise StorageError(
            f"{config.exp_dir}: no such folder, so the record is not kept; "
            f"is its disk mounted?{demo}"
        )
    name = f"checklist_{record.period}_{stamp()}.json"
    return record.write(path or config.records_dir / name)


def _list_names(names: list[str]) -> str:
    shown = names[:MAX_NAMED]
    if len(names) > MAX_NAMED:
        shown = [*shown[: MAX_NAMED - 1], f"{len(names) - MAX_NAMED + 1} more"]
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]


def _agree(words: str, count: int) -> str:
    return words.replace("wants", "want") if count > 1 else words
