"""Going through the checklist of a period: every item asked, none of them able to stop the rest."""

import time
from collections.abc import Callable, Set
from datetime import UTC, timedelta

from opslib.core.config import Config
from opslib.core.errors import OpsError, ParameterError
from opslib.core.language import mark, tr
from opslib.core.lineage import record_lineage
from opslib.core.secrets import live_secrets, mask
from opslib.core.served import ServedNote
from opslib.core.verdicts import VERDICT_EXIT_CODES
from opslib.ops.checklist.benchmarks import check_benchmark
from opslib.ops.checklist.disks import check_disks
from opslib.ops.checklist.items import (
    PERIOD_WORDS,
    PERIODS,
    WINDOW_H,
    Answer,
    Check,
    Item,
    Period,
    Visit,
    parse_period,
)
from opslib.ops.checklist.log_digest import clean_line
from opslib.ops.checklist.logs import check_api_log, check_tunnel_log
from opslib.ops.checklist.maintenance import check_maintenance, check_rotation
from opslib.ops.checklist.policy import check_cors, check_key_age, check_strangers, check_uploads
from opslib.ops.checklist.record import ChecklistRecord, decide, find_since, read_checklists
from opslib.ops.checklist.releases import check_release, check_restore
from opslib.ops.checklist.service import check_inside, check_live_model, check_outside

Progress = Callable[[str], None]
MAX_WINDOW_H = 24.0 * 366

CHECKS = (
    Check("inside", mark("Health, inside"), "daily", check_inside),
    Check("outside", mark("Health, outside"), "daily", check_outside),
    Check("model", mark("Live model"), "daily", check_live_model),
    Check("api_log", mark("API log"), "daily", check_api_log),
    Check("tunnel_log", mark("Tunnel log"), "daily", check_tunnel_log),
    Check("disks", mark("Disks"), "daily", check_disks),
    Check("maintenance", mark("Maintenance"), "weekly", check_maintenance),
    Check("rotation", mark("Log rotation"), "weekly", check_rotation),
    Check("release", mark("Release"), "weekly", check_release),
    Check("restore", mark("Restore test"), "weekly", check_restore),
    Check("key", mark("API key"), "monthly", check_key_age),
    Check("strangers", mark("Strangers"), "monthly", check_strangers),
    Check("cors", mark("Browsers (CORS)"), "monthly", check_cors),
    Check("uploads", mark("Uploads"), "monthly", check_uploads),
    Check("benchmark", mark("Benchmark"), "monthly", check_benchmark),
)


def checks_of(period: Period) -> tuple[Check, ...]:
    """Return the checks of a period; a longer one has those of the shorter ones too."""
    included = PERIODS[: PERIODS.index(period) + 1]
    return tuple(check for check in CHECKS if check.period in included)


def run_checklist(
    config: Config, period: str, *, hours: float | None = None, progress: Progress = lambda _: None
) -> ChecklistRecord:
    """Go through the checklist of `period` and return what was found. `hours`: how far back the
    logs are read; by default the period itself. `progress`: told the title of each item before it
    is looked at. Raises ParameterError: there is no such period, or `hours` is not above 0."""
    chosen = parse_period(period)
    window_h = WINDOW_H[chosen] if hours is None else hours
    if not 0 < window_h <= MAX_WINDOW_H:
        raise ParameterError(f"hours: got {hours}, expected more than 0, at most {MAX_WINDOW_H:g}")
    started = time.monotonic()
    visit = Visit(config, chosen, window_h)
    secrets = live_secrets(config.root)
    earlier = read_checklists(config, now=visit.now)
    items = []
    for check in checks_of(chosen):
        progress(tr(check.title))
        items.append(_ask(check, visit, secrets, earlier))
    verdict, finding = decide(items)
    since = visit.now - timedelta(hours=window_h)
    return ChecklistRecord(
        verdict=verdict,
        finding=tr(
            "{period}: {finding}", period=tr(PERIOD_WORDS[chosen]).capitalize(), finding=finding
        ),
        exit_code=int(VERDICT_EXIT_CODES[verdict]),
        lineage=record_lineage(),
        experiment=str(config.exp_dir),
        period=chosen,
        since_utc=since.astimezone(UTC).isoformat(timespec="seconds"),
        items=tuple(items),
        wall_s=round(time.monotonic() - started, 3),
    )


def _ask(check: Check, visit: Visit, secrets: Set[str], earlier: list[ChecklistRecord]) -> Item:
    """Answer one item; what it could not read makes it `unknown`, not the end of the list."""
    started = time.monotonic()
    try:
        answer = check.answer(visit)
    except (OpsError, OSError, ValueError) as error:
        answer = Answer.of("unknown", str(error), step=tr("repair what it names"))

    def clean(line: str) -> str:
        return clean_line(mask(line, secrets))

    told = {
        **dict(answer),
        "evidence": tuple(map(clean, answer.evidence)),
        "next_step": clean(answer.next_step) if answer.next_step else None,
        "models": tuple(_clean_note(one, clean) for one in answer.models),
    }
    return Item(
        **told,
        name=check.name,
        title=check.title,
        period=check.period,
        took_s=round(time.monotonic() - started, 3),
        since_utc=find_since(check.name, answer.state, earlier),
    )


def _clean_note(note: ServedNote, clean: Callable[[str], str]) -> ServedNote:
    told = {name: clean(text) for name, text in dict(note).items() if text is not None}
    return note.model_copy(update=told)
