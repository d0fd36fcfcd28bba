"""Back to the last good model: the one served before, else an earlier export, else a release."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError, OpsError
from opslib.core.kinds import Kind, pick_kind
from opslib.core.models import find_model_files, follow_model
from opslib.core.plans import Action, Plan
from opslib.core.served import read_served_state
from opslib.inference.find_model import list_exports
from opslib.ops.release.manifest import Manifest, ModelSummary
from opslib.ops.release.restore import restore_release
from opslib.ops.release.signature import Demand
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.ops.release.verify import verify_release
from opslib.serving.live import LiveVersion

_Known = tuple[Path, str | None, str]  # a model, the digest that it must have, why this one


@dataclass(frozen=True)
class StableModel:
    """The model to go back to, why this one, and which were passed over and why. `release` names
    the release it has to be restored from first; `path` is then where it will be."""

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
    demand: Demand = "demanded",
) -> StableModel:
    """Return the model to go back to from `live`: one of the service's history, else an export,
    else a model of the release store, which is verified before it is offered.

    `live` is None where nothing is served; `kind` the only one by default; `check` raises for a
    model that must not be served; `demand`: whether a release must be signed, see
    `signature.check_signature`. Raises ModelError: there is none, and the message says
    where was looked and what was passed over; InputError: it is not known which model is live, so
    that it could be chosen itself; ParameterError: there are several kinds and none was named.
    """
    kind = kind or pick_kind(config)
    if live is not None and not live.said:
        fields = f"{kind.client.path_field} nor {kind.client.digest_field}"
        remedy = f"set {kind.key('path_field')}, or choose one: `pillops reload --path MODEL`"
        lost = f"which {kind.name} is live is not known"
        raise InputError(f"{lost}: /version has neither {fields}; {remedy}")
    live_path = follow_model(config.resolve(live.model_path)) if live and live.model_path else None
    told = live_digest = live.sha256 if live else None
    if live_digest is None and live_path is not None:
        with suppress(ModelError, OSError):  # of a service that gives none, if it lies here
            live_digest = find_model_files(live_path).digest()
    alike = _find_alike(live_digest, (one.read_copy() for one in list_releases(config)))
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
        if digest in alike or (not told and follow_model(path) == live_path):
            continue
        try:
            if check is not None:
                check(path)
        except (ModelError, InputError) as error:
            skipped.append(str(error))
            continue
        return StableModel(follow_model(path), digest, why, skipped=tuple(skipped))
    live_name = live_path.name if live_path else None
    found = next(list_released(config, live_digest, live_name, skipped, kind, demand), None)
    if found is not None:
        return replace(found, skipped=tuple(skipped))
    reason = f"; passed over: {'; '.join(skipped)}" if skipped else ""
    which = "" if kind.sole else f"{kind.name} "
    places = f"the service's history, {config.export_dir} and {config.releases_dir}"
    raise ModelError(f"no other usable {which}model to go back to in {places}{reason}")


def plan_rollback(stable: StableModel, run: Callable[[], None]) -> Plan:
    """Return the plan of a rollback: restore the model if it has to be, then `run`, the switch."""
    steps = [Action("switch to", str(stable.path), stable.why, run)]
    if stable.release is not None and stable.restore is not None:
        why = "no other place has this model"
        steps.insert(0, Action("restore", stable.release, why, stable.restore))
    return Plan(f"rollback to sha256 {stable.sha256[:12]}…", tuple(steps), chained=True)


def list_released(
    config: Config,
    live_sha256: str | None,
    live_name: str | None,
    skipped: list[str],
    kind: Kind,
    demand: Demand = "demanded",
) -> Iterator[StableModel]:
    """Yield the models of a kind in the store that are not the live one, each verified before it is
    offered.

    The models that releases were made for come first: those released before the live one, the
    newest first, then those released after it, then whatever else releases hold.

    The live model is left out: by its digest, or by its file's name where the service says none.
    `skipped` gets a line for each release that was passed over, and why.
    """
    broken: set[str] = set()
    store: list[tuple[StoredRelease, Manifest]] = []
    for stored in list_releases(config):
        try:
            store.append((stored, stored.manifest()))
        except (OpsError, OSError) as error:
            skipped.append(_explain(stored, error))
    alike = _find_alike(live_sha256, (manifest for _, manifest in store))
    seen = set(alike)
    for stored, model, why in _order(store, alike, kind):
        if model.digests & seen or (live_sha256 is None and Path(model.path).name == live_name):
            continue
        if stored.name in broken or not kind.has(Path(model.path).name):
            continue
        found = StableModel(config.restore_dir / stored.name / model.path, model.sha256, why)
        try:
            is_restored = found.path.exists()
            if not is_restored or config.release.allowed_signers is not None:
                # Also one restored before: who signed its digest, only the release tells.
                verify_release(stored.path, config=config, load_models=False, demand=demand)
            if is_restored:
                _check_restored(found)
            else:
                restore = partial(_restore, config, stored, found, demand)
                found = replace(found, release=stored.name, restore=restore)
        except (OpsError, OSError) as error:
            broken.add(stored.name)
            skipped.append(_explain(stored, error))
            continue
        seen |= model.digests
        yield found


def _find_alike(sha256: str | None, store: Iterable[Manifest | None]) -> frozenset[str | None]:
    """A model's digest, and those of the same network with other metadata, as releases hold it: its
    original, and whatever else is a copy of that."""
    models = [model.digests for manifest in filter(None, store) for model in manifest.models]
    own = frozenset({sha256}).union(*(one for one in models if sha256 in one))
    return own.union(*(one for one in models if one & own))


def _restore(config: Config, stored: StoredRelease, model: StableModel, demand: Demand) -> None:
    """Restore a release, so that `model` lies where it was promised, or raise `ModelError`."""
    target = config.restore_dir / stored.name
    try:
        # Not loaded here: the service tries it before it switches.
        restore_release(stored.path, target, config=config, load_models=False, demand=demand)
        _check_restored(model)
    except (OpsError, OSError) as error:
        lost = f"{stored.name} cannot be restored, nothing was switched"
        raise ModelError(f"{lost}: {error}") from error


def _check_restored(model: StableModel) -> None:
    digest, expected = find_model_files(model.path).digest(), model.sha256
    if digest != expected:
        differs = f"sha256 {digest[:12]}…, expected {expected[:12]}…"
        remedy = "remove that folder to restore it anew"
        raise ModelError(f"{model.path}: not the released model ({differs}); {remedy}")


def _order(
    store: list[tuple[StoredRelease, Manifest]], alike: frozenset[str | None], kind: Kind
) -> Iterator[tuple[StoredRelease, ModelSummary, str]]:
    mains = [(stored, _main_of(manifest, kind)) for stored, manifest in store]
    digests = [main.sha256 if main else None for _, main in mains]
    at = next((at for at, one in enumerate(digests) if one is not None and one in alike), -1)
    newest = "the newest sound release of another model"
    before = f"{newest}, before the live one" if at >= 0 else newest
    after = "the only other release, newer than the live model's"
    for why, ones in ((before, mains[at + 1 :]), (after, mains[: at + 1])):
        yield from ((stored, main, why) for stored, main in ones if main is not None)
    for (stored, manifest), digest in zip(store, digests, strict=True):
        for model in manifest.models:
            if model.sha256 != digest:
                yield stored, model, "packed with a release, though not the model it was made for"


def _main_of(manifest: Manifest, kind: Kind) -> ModelSummary | None:
    models = {model.path: model for model in manifest.models}
    main = next((one.main for one in manifest.kinds if one.name == kind.name), manifest.main)
    return models[main] if kind.has(Path(main).name) else None


def _explain(stored: StoredRelease, error: Exception) -> str:
    return f"{stored.name}: {str(error).removeprefix(f'{stored.path.name}: ')}"


def _list_history(config: Config, kind: Kind) -> list[_Known]:
    """What our service had in service, with the digest that each must have and why, the latest
    first."""
    state = None
    with suppress(InputError):
        state = read_served_state(config)
    return [
        (one.path, one.sha256, f"served until the switch after {one.switched_at_utc}")
        for one in ((state.current, *state.previous) if state else ())
        if kind.has(one.path.name)
    ]


def _list_exports(config: Config, live_path: Path | None, kind: Kind) -> list[_Known]:
    """The exports, of whatever digest, and why each, the best first."""
    exports = list_exports(config.export_dir, kind)
    age = live_path.stat().st_mtime_ns if live_path and live_path.exists() else None
    older = [path for path in exports if age is None or path.stat().st_mtime_ns <= age]
    why = "the newest export before the live one"
    why_newer = "the only other export, newer than the live one"
    newer = [(path, None, why_newer) for path in exports if path not in older]
    return [*((path, None, why) for path in older), *newer]
