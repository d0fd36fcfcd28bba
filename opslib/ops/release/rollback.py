"""Back to the last good model: the one served before, else an earlier export, else a release."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError
from opslib.core.kinds import Kind, pick_kind
from opslib.core.models import find_model_files, follow_model
from opslib.core.plans import Action, Plan
from opslib.core.served import read_served_state
from opslib.inference.find_model import list_exports
from opslib.ops.release.candidates import list_released, restore_model
from opslib.serving.live import LiveVersion


@dataclass(frozen=True)
class StableModel:
    """The model to go back to, why this one, and which were passed over and why.

    `release` names the release it has to be restored from first; `path` is then where it will be.
    """

    path: Path
    sha256: str
    why: str
    release: str | None = None
    restore: Callable[[], None] | None = field(default=None, repr=False)
    skipped: tuple[str, ...] = ()


def find_stable(
    config: Config,
    live: LiveVersion | None,
    kind: Kind | None = None,
    check: Callable[[Path], object] | None = None,
) -> StableModel:
    """Return the model to go back to from `live`: one of the service's history, else an export,
    else a model of the release store, which is verified before it is offered.

    Args:
        live: what is served; None where nothing is.
        kind: the kind of models to choose among; the only one by default.
        check: raises `ModelError` for a model that must not be served.

    Raises:
        ModelError: there is none; the message says where was looked and what was passed over.
        InputError: it is not known which model is live, so that it could be chosen itself.
        ParameterError: there are several kinds and none was named.
    """
    kind = kind or pick_kind(config)
    if live is not None and not live.said:
        fields = f"{kind.client.path_field} nor {kind.client.digest_field}"
        raise InputError(
            f"which {kind.name} is live is not known: /version has neither {fields}; set "
            f"{kind.key('path_field')}, or choose one: `pillops reload --path MODEL`"
        )
    live_path = follow_model(config.resolve(live.model_path)) if live and live.model_path else None
    told = live_digest = live.sha256 if live else None
    if live_digest is None and live_path is not None:
        with suppress(ModelError, OSError):  # of a service that gives none, if it lies here
            live_digest = find_model_files(live_path).digest()
    skipped: list[str] = []
    # Our service gives digests; of another one's models served.json knows nothing.
    is_own = live.sha256 is not None if live else kind.sole
    history = _list_history(config, kind) if is_own else []
    for path, sha256, why in (*history, *_list_exports(config, live_path, kind)):
        try:
            digest = find_model_files(path).digest()
        except (ModelError, OSError) as error:
            if path.exists():  # what was deleted since is no news
                skipped.append(str(error))
            continue
        if sha256 is not None and digest != sha256:
            skipped.append(f"{path}: it has changed since it was served")
            continue
        if digest == live_digest or (not told and follow_model(path) == live_path):
            continue
        try:
            if check is not None:
                check(path)
        except (ModelError, InputError) as error:
            skipped.append(str(error))
            continue
        return StableModel(follow_model(path), digest, why, skipped=tuple(skipped))
    live_name = live_path.name if live_path else None
    for one in list_released(config, live_digest, live_name, skipped, kind):
        found = StableModel(one.path, one.sha256, one.why, skipped=tuple(skipped))
        if one.restored:
            return found
        restore = partial(restore_model, config, one)
        return replace(found, release=one.stored.name, restore=restore)
    reason = f"; passed over: {'; '.join(skipped)}" if skipped else ""
    which = "" if kind.sole else f"{kind.name} "
    raise ModelError(
        f"no other usable {which}model to go back to in the service's history, "
        f"{config.export_dir} and {config.releases_dir}{reason}"
    )


def plan_rollback(stable: StableModel, run: Callable[[], None]) -> Plan:
    """Return the plan of a rollback: restore the model if it has to be, then `run`, the switch."""
    switch = Action("switch to", str(stable.path), stable.why, run)
    steps: tuple[Action, ...] = (switch,)
    if stable.release is not None and stable.restore is not None:
        why = "no other place has this model"
        steps = (Action("restore", stable.release, why, stable.restore), switch)
    return Plan(f"rollback to sha256 {stable.sha256[:12]}…", steps)


def _list_history(config: Config, kind: Kind) -> list[tuple[Path, str | None, str]]:
    """What our service had in service, with the digest that each must have and why, the latest
    first."""
    try:
        state = read_served_state(config)
    except InputError:
        state = None
    served = [state.current, *state.previous] if state else []
    return [
        (one.path, one.sha256, f"served until the switch after {one.switched_at_utc}")
        for one in served
        if kind.has(one.path.name)
    ]


def _list_exports(
    config: Config, live_path: Path | None, kind: Kind
) -> list[tuple[Path, str | None, str]]:
    """The exports, of whatever digest, and why each, the best first."""
    exports = list_exports(config.export_dir, kind)
    age = live_path.stat().st_mtime_ns if live_path and live_path.exists() else None
    older = [path for path in exports if age is None or path.stat().st_mtime_ns <= age]
    newer = [path for path in exports if path not in older]
    return [
        *((path, None, "the newest export before the live one") for path in older),
        *((path, None, "the only other export, newer than the live one") for path in newer),
    ]
