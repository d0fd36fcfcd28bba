"""Write the table of docs/MODELS.md: what becomes of other people's models at every door.

    python tools/models.py [--check]

The table is that of tests/zoo/table.py, which the tests and `make soak` hold against the doors.
Exit code 3 when `--check` finds the document out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.zoo.table import DOORS, MODELS, TITLES, expect

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "MODELS.md"
BEGIN, END = "<!-- models -->\n", "<!-- /models -->"


def make_table() -> str:
    """Return the table, a row for each model of the zoo."""
    by_name = {one.name: one for one in MODELS}
    lines = [
        f"| a model as people have it | {' | '.join(DOORS)} |",
        f"|{'---|' * (len(DOORS) + 1)}",
    ]
    for name, title in TITLES.items():
        cells = [title, *(expect(by_name[name], door) for door in DOORS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Write the table, or say whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    check = parser.parse_args().check
    old = DOCUMENT.read_text()
    head, _, rest = old.partition(BEGIN)
    new = f"{head}{BEGIN}{make_table()}{END}{rest.partition(END)[2]}"
    if check:
        return 3 if new != old else 0
    DOCUMENT.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
