"""A sweep's recommendation written into the configuration, of whichever of the two sweeps it is."""

from pathlib import Path

from opslib.core.config import Config
from opslib.core.config_edit import Value, show_value
from opslib.core.errors import ConfigError, InputError
from opslib.core.plans import Plan
from opslib.core.records import read_json
from opslib.ops.served_sweep.record import ServedOptions, ServedSweepRecord
from opslib.ops.sweep import apply as sessions
from opslib.ops.sweep.apply import pick_recommended, plan_changes
from opslib.ops.sweep.record import SweepRecord

AnySweep = SweepRecord | ServedSweepRecord


def read_sweep(path: Path) -> AnySweep:
    """Return the record of a sweep, of sessions or of the service. Raises InputError: it is none,
    or cannot be read."""
    kinds: tuple[type[AnySweep], ...] = (SweepRecord, ServedSweepRecord)
    expected = "expected the record of a sweep, " + " or ".join(one.schema_id() for one in kinds)
    try:
        said = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; {expected}") from error
    schema = said.get("schema") if isinstance(said, dict) else None
    for kind in kinds:
        if schema == kind.schema_id():
            return kind.read(path)
    raise InputError(f"{path}: schema is {show_value(schema)}; {expected}")


def plan_any(record: AnySweep, config: Config, *, force: bool = False) -> Plan:
    """Return the changes of `config.yaml` that the recommended settings need; see `plan_apply`."""
    if isinstance(record, SweepRecord):
        return sessions.plan_apply(record, config, force=force)
    return plan_served_apply(record, config, force=force)


def find_any_overrides(record: AnySweep, config: Config) -> list[str]:
    """Return the keys that say something else than recommended; see `find_overrides`."""
    if isinstance(record, SweepRecord):
        return sessions.find_overrides(record, config)
    return find_served_overrides(record, config)


def plan_served_apply(record: ServedSweepRecord, config: Config, *, force: bool = False) -> Plan:
    """Return the changes of `config.yaml` that the recommended settings need; see `plan_apply`."""
    chosen = pick_recommended(record, force=force)
    compared = "the default's rate" if record.goal.objective == "throughput" else "as low a p99"
    why = f"{chosen.gain:.2f} x {compared}, as served"
    if chosen.is_default:
        why = "the default is as good as anything tried"
    return plan_changes(_list_changes(chosen.options, config), config, why=why)


def find_served_overrides(record: ServedSweepRecord, config: Config) -> list[str]:
    """Return the keys that say something else than recommended; see `find_overrides`."""
    if record.recommended is None:
        raise ConfigError("the sweep recommends nothing")
    return list(_list_changes(record.recommended.options, config))


def _list_changes(options: ServedOptions, config: Config) -> dict[str, Value]:
    """Return what the file must say: its own keys only where they differ from what is in force."""
    changes: dict[str, Value] = {}
    for key, value in options.settings().items():
        section, _, name = key.partition(".")
        if getattr(getattr(config, section), name) != value:
            changes[key] = value
    return changes
