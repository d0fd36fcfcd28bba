"""`pillops drill`: rehearse swap and rollback under load, print the verdict, keep the record."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from opslib.core.config import Config
from opslib.core.formatting import format_duration
from opslib.ops.drill.request import DrillRequest
from opslib.telling.columns import terminal_table
from opslib.telling.doors import describe_experiment, say, say_verdict
from opslib.telling.operation import Operation, measure, records_of, takes_request

if TYPE_CHECKING:
    from opslib.ops.drill.record import DrillRecord


@takes_request(DrillRequest)
def drill(request: DrillRequest, config: Config, json: Path | None) -> int:
    """Swap, roll back, provoke and kill a service under load; say whether anyone noticed."""
    from opslib.ops.drill.run import keep_drill, run_drill

    where = f"the service at {request.url}" if request.url else "a staging service on a copy"
    what = f"drill of {where}; {describe_experiment(config)}"
    record, _ = measure(what, run_drill, keep_drill, show_drill, request, config, json)
    return int(record.exit_code)


def show_drill(console: Console, record: DrillRecord) -> None:
    """Print the lines of the verdict, broken promises, notes, and the verdict."""
    from opslib.ops.drill.columns import CHECK_COLUMNS

    caption = (
        f"{record.lineage.host.label}, {record.device}; {record.requests:,} requests at "
        f"{record.rate_per_s:.0f} a second in {format_duration(record.wall_s)}"
    )
    console.print(terminal_table(CHECK_COLUMNS, record.checks, caption))
    for check in record.checks:
        if check.reason:
            say(console, f"{check.name}: {check.reason}")
    for injection in record.injections:
        if injection.held is False:
            say(console, f"broken: {injection.injected}: {injection.seen}")
    untried = defaultdict(list)
    for injection in record.injections:
        if injection.held is None:
            untried[injection.seen.removeprefix("not tried: ")].append(injection.injected)
    for reason, names in untried.items():
        what = names[0] if len(names) == 1 else f"{len(names)} of {len(record.injections)} faults"
        say(console, f"not tried: {what}: {reason}")
    for note in record.notes:
        say(console, note)
    say_verdict(console, record.verdict, record.finding)


DRILL = Operation(
    "drill", {"drill": drill}, records=records_of("opslib.ops.drill", "DrillRecord", "drill_")
)
