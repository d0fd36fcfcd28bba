"""What a checklist leaves behind: every item with its evidence, the answer, and earlier runs."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from opslib.core.clock import is_ahead, parse_moment
from opslib.core.config import Config
from opslib.core.errors import InputError, StorageError
from opslib.core.formatting import stamp
from opslib.core.language import name_some, tr, tr_many
from opslib.core.lineage import Lineage
from opslib.core.records import Record
from opslib.core.verdicts import Verdict
from opslib.ops.checklist.items import QUIET, STATES, Item, Period, State

PATTERN = "checklist_*.json"
MAX_RUNS = 14


class ChecklistRecord(Record):
    """One run of the checklist; the logs were read from `since_utc` on. `fail` where an item
    failed, else `inconclusive` where one wants attention or could not be checked: a person has to
    decide. `pass` where there is nothing to look at."""

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
    named = {state: [item.shown_title for item in items if item.state == state] for state in STATES}
    parts = [_tell(state, names) for state, names in named.items() if names and state not in QUIET]
    count = len(named["ok"])
    good = tr_many("{count} item is ok", "{count} items are ok", count)
    good = good if count else tr("no item is ok")
    all_well = tr("all is well, {good}.", good=good)
    finding = f"{'; '.join(parts)}; {good}." if parts else all_well
    if any(item.state == "failed" for item in items):
        return "fail", finding
    return ("inconclusive" if parts else "pass"), finding


def keep_checklist(record: ChecklistRecord, config: Config, path: Path | None = None) -> Path:
    """Write the record to `path`, by default `{exp_dir}/reports/checklist_<period>_<UTC>.json`;
    return where it lies. Raises StorageError: there is no such experiment folder: its disk may not
    be mounted, and a folder made in its place would hide that."""
    if path is None and not config.exp_dir.is_dir():
        demo = " The demo is made with `make demo`" if config.can_be_demo else ""
        lost = f"{config.exp_dir}: no such folder, so the record is not kept"
        raise StorageError(f"{lost}; is its disk mounted?{demo}")
    name = f"checklist_{record.period}_{stamp()}.json"
    return record.write(path or config.records_dir / name)


def read_checklists(
    config: Config, limit: int = MAX_RUNS, *, now: datetime | None = None
) -> list[ChecklistRecord]:
    """Return the last `limit` kept checklists of any period, the oldest first; what is no
    checklist of this version, or is dated after now, is passed over."""
    found: list[ChecklistRecord] = []
    paths = config.records_dir.glob(PATTERN)
    for path in sorted(paths, key=lambda one: one.stem.split("_")[-1], reverse=True):
        if len(found) == limit:
            break
        try:
            record = ChecklistRecord.read(path)
        except InputError:
            continue
        if not is_ahead(parse_moment(record.lineage.created_at_utc), now):
            found.append(record)
    return sorted(found, key=lambda record: record.lineage.created_at_utc)


def find_since(name: str, state: State, earlier: Sequence[ChecklistRecord]) -> str | None:
    """Return when an item was first found in this state, without a change since, or None where it
    is so for the first time. `earlier`: the runs before, the oldest first; those without this item
    say nothing."""
    since = None
    for record in reversed(earlier):
        before = record.item(name)
        if before is not None and before.state != state:
            break
        since = record.lineage.created_at_utc if before is not None else since
    return since


def _tell(state: State, titles: list[str]) -> str:
    names = name_some(titles)
    if state == "failed":
        return tr("{names} failed", names=names)
    if state == "unknown":
        return tr("{names} could not be checked", names=names)
    return tr_many("{names} wants attention", "{names} want attention", len(titles), names=names)
