"""The fleet told to people: tables, what was left out, and key figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opslib.core.language import tr
from opslib.ops.fleet.columns import (
    CONDITION_COLUMNS,
    HOST_COLUMNS,
    LIKE_COLUMNS,
    MODEL_COLUMNS,
    SERVED_COLUMNS,
    list_conditions,
    list_current,
    list_known,
    list_likened,
    list_picked,
)
from opslib.ops.fleet.record import FleetRecord
from opslib.telling.columns import page_of
from opslib.telling.scraps import publish, publish_outcome

host_frame = page_of(HOST_COLUMNS, lambda record: record.hosts)
picked_frame = page_of(LIKE_COLUMNS, list_picked)
like_frame = page_of(LIKE_COLUMNS, list_likened)
model_frame = page_of(MODEL_COLUMNS, list_current)
served_frame = page_of(SERVED_COLUMNS, list_known)
condition_frame = page_of(CONDITION_COLUMNS, list_conditions)


def list_notes(record: FleetRecord) -> Sequence[str]:
    """Return what was left out, or that nothing was."""
    return record.notes or ("Nothing of the report folder was left out.",)


def publish_fleet(record: FleetRecord, path: Path) -> None:
    """Publish the verdict and how many hosts are slower, behind and silent as scraps."""
    publish_outcome(record.verdict, record.finding, exit_code=record.exit_code, record_path=path)
    hosts = record.hosts
    publish("hosts", len(hosts), label=tr("Hosts"))
    publish(
        "slower", sum(host.speed == "slower" for host in hosts), label=tr("Slower than their like")
    )
    publish("behind", sum(bool(host.behind) for host in hosts), label=tr("Behind the newest model"))
    publish("silent", sum(host.is_silent for host in hosts), label=tr("Not heard of"))
    untold = sum(host.speed is None for host in hosts)
    publish("not_compared", untold, label=tr("Not comparable"))
