"""What the toy leaves behind, and how it is made and kept."""

from __future__ import annotations

import random
from pathlib import Path

from opslib.core.config import Config
from opslib.core.formatting import stamp
from opslib.core.lineage import Lineage, record_lineage
from opslib.core.records import Record
from opslib.core.verdicts import Verdict


class ToyRecord(Record):
    """Throws of a coin and how many of them showed heads."""

    schema_name = "toy"

    verdict: Verdict
    finding: str
    lineage: Lineage
    throws: int
    heads: int


def throw(throws: int) -> ToyRecord:
    """Return the record of so many throws."""
    heads = sum(random.Random(throws).choices((0, 1), k=throws))
    finding = f"{heads} of {throws} throws show heads."
    lineage = record_lineage()
    return ToyRecord(verdict="pass", finding=finding, lineage=lineage, throws=throws, heads=heads)


def keep(record: ToyRecord, config: Config) -> Path:
    """Write the record to `{exp_dir}/reports/toy_<UTC>.json` and return its path."""
    config.records_dir.mkdir(parents=True, exist_ok=True)
    return record.write(config.records_dir / f"toy_{stamp()}.json")
