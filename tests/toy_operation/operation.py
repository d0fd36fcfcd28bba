"""What the rest of the house knows of the toy: its command and its record."""

from __future__ import annotations

from opslib.core.config import load_config
from opslib.telling.columns import terminal_table
from opslib.telling.doors import ConfigOption, make_console, say_verdict
from opslib.telling.operation import Operation, Records, lazily


def toy(throws: int = 10, config: ConfigOption = None) -> int:
    """Throw a coin."""
    from tests.toy_operation.columns import COLUMNS
    from tests.toy_operation.record import keep, throw

    record = throw(throws)
    keep(record, load_config(config))
    console = make_console()
    console.print(terminal_table(COLUMNS, [record]))
    say_verdict(console, record.verdict, record.finding)
    return 0


TOY = Operation(
    "toy",
    {"toy": toy},
    records=Records(
        "toy_",
        read=lazily("tests.toy_operation.record:ToyRecord.read"),
        table=lazily("tests.toy_operation.columns:snapshot"),
    ),
)
