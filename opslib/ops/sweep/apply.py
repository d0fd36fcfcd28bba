"""A sweep's recommendation written into the configuration: engines and service read it there."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol, TypeVar

from opslib.core.config import Config, parse_config
from opslib.core.config_edit import Value, plan_config_edit
from opslib.core.errors import ConfigError, GateFailedError, InconclusiveError, InputError
from opslib.core.host import host_facts
from opslib.core.lineage import Lineage
from opslib.core.overrides import name_variable, read_variables
from opslib.core.plans import Plan
from opslib.ops.sweep.record import SCALARS, SweepOptions, SweepRecord

R = TypeVar("R", covariant=True)


class Judged(Protocol[R]):
    """A record that may recommend something."""

    @property
    def verdict(self) -> str: ...
    @property
    def finding(self) -> str: ...
    @property
    def lineage(self) -> Lineage: ...
    @property
    def recommended(self) -> R | None: ...


def plan_apply(record: SweepRecord, config: Config, *, force: bool = False) -> Plan:
    """Return the changes of `config.yaml` that the recommended settings need.

    An option that the recommendation leaves at its default is written too, where the file says
    something else; CUDA options that no sweep varies stay as they are.

    `force`: also from another host's record. Raises GateFailedError: the sweep failed;
    InconclusiveError: the sweep did not decide, or it ran on another host; InputError: the record
    names an option that no sweep varies; ConfigError: the configuration would not load with the
    recommended values.
    """
    chosen = pick_recommended(record, force=force)
    why = f"{chosen.gain:.2f} x the default's speed at batch {chosen.batch_size}"
    if chosen.is_default:
        why = "the default is as good as anything tried"
    return plan_changes(_list_changes(chosen.options, config), config, why=why)


def pick_recommended(record: Judged[R], *, force: bool) -> R:
    """Return what a record recommends. Raises GateFailedError: the sweep failed; InconclusiveError:
    it did not decide, or it ran on another host, unless `force`."""
    if record.recommended is None or record.verdict == "fail":
        raise GateFailedError(f"the sweep recommends nothing: {record.finding}")
    if record.verdict == "inconclusive":
        raise InconclusiveError(f"the sweep did not decide: {record.finding}")
    if record.lineage.host_fingerprint != host_facts().fingerprint and not force:
        raise InconclusiveError(
            f"the sweep ran on another host ({record.lineage.host.label}); run it here, or "
            "apply it all the same with --force"
        )
    return record.recommended


def plan_changes(changes: Mapping[str, Value], config: Config, *, why: str) -> Plan:
    """Return the edit that gives these keys of the configuration file these values. Raises
    ConfigError: the configuration would not load with them."""
    # A variable that overrides a key must not hide that the file's new value is impossible.
    hiding = tuple(map(name_variable, changes))
    variables = {
        name: value
        for name, value in read_variables(config.root).items()
        if not name.upper().startswith(hiding)
    }
    check = partial(parse_config, source=config.source, variables=variables)
    return plan_config_edit(config.source, changes, why=why, check=check)


def find_overrides(record: SweepRecord, config: Config) -> list[str]:
    """Return the keys that say something else than recommended, in a configuration loaded after the
    plan was executed: an environment variable overrides the file. Raises ConfigError: the record
    recommends nothing."""
    if record.recommended is None:
        raise ConfigError("the sweep recommends nothing")
    return list(_list_changes(record.recommended.options, config))


def _list_changes(options: SweepOptions, config: Config) -> dict[str, Value]:
    """Return what the file must say: its own keys only where they differ from what is in force."""
    from opslib.ops.sweep.space import CUDA_OPTION_DEFAULTS

    section = config.onnx
    unknown = next((name for name in options.cuda if name not in CUDA_OPTION_DEFAULTS), None)
    if unknown is not None:
        known = ", ".join(CUDA_OPTION_DEFAULTS)
        raise InputError(f"the sweep's record: unknown CUDA option {unknown!r}; known: {known}")
    changes: dict[str, Value] = {}
    if tuple(section.providers) != options.providers:
        changes["onnx.providers"] = list(options.providers)
    for name in SCALARS:
        if getattr(section, name) != getattr(options, name):
            changes[f"onnx.{name}"] = getattr(options, name)
    given = CUDA_OPTION_DEFAULTS | section.cuda
    for name, value in (CUDA_OPTION_DEFAULTS | options.cuda).items():
        if str(given[name]) != str(value):
            changes[f"onnx.cuda.{name}"] = value
    return changes
