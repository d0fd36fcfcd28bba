"""Models that lie in the release store, as candidates to go back to; the best first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import ModelError, OpsError
from opslib.core.kinds import Kind
from opslib.core.models import find_model_files
from opslib.ops.release.manifest import Manifest, ModelSummary
from opslib.ops.release.restore import restore_release
from opslib.ops.release.store import StoredRelease, list_releases
from opslib.ops.release.verify import verify_release


@dataclass(frozen=True)
class ReleasedModel:
    """A model of a release: where it will lie once restored, and whether it lies there already."""

    stored: StoredRelease
    sha256: str
    path: Path
    restored: bool
    why: str


def list_released(
    config: Config,
    live_sha256: str | None,
    live_name: str | None,
    skipped: list[str],
    kind: Kind,
) -> Iterator[ReleasedModel]:
    """Yield the models of a kind in the store that are not the live one, each verified before it is
    offered.

    The models that releases were made for come first: those released before the live one, the
    newest first, then those released after it, then whatever else releases hold.

    Args:
        live_sha256: digest of the live model, which is left out.
        live_name: its file's name, where the service says no digest.
        skipped: gets a line for each release that was passed over, and why.
        kind: which models count.
    """
    seen = {live_sha256}
    broken: set[str] = set()
    for stored, model, why in _order(_read_store(config, skipped), live_sha256, kind):
        if model.sha256 in seen or (live_sha256 is None and Path(model.path).name == live_name):
            continue
        if stored.name in broken or not kind.has(Path(model.path).name):
            continue
        path = config.restore_dir / stored.name / model.path
        restored = path.exists()
        try:
            if restored:
                _check_restored(path, model.sha256)
            else:
                verify_release(stored.path, config=config, load_models=False)
        except (OpsError, OSError) as error:
            broken.add(stored.name)
            skipped.append(_explain(stored, error))
            continue
        seen.add(model.sha256)
        yield ReleasedModel(stored, model.sha256, path, restored, why)


def restore_model(config: Config, model: ReleasedModel) -> None:
    """Restore the release of `model` to where it was promised.

    Raises:
        ModelError: it cannot be restored; nothing was left half done.
    """
    target = config.restore_dir / model.stored.name
    try:
        # Not loaded here: the service tries it before it switches.
        restore_release(model.stored.path, target, config=config, load_models=False)
        _check_restored(model.path, model.sha256)
    except (OpsError, OSError) as error:
        raise ModelError(
            f"{model.stored.name} cannot be restored, nothing was switched: {error}"
        ) from error


def _read_store(config: Config, skipped: list[str]) -> list[tuple[StoredRelease, Manifest]]:
    """The releases with their manifests, the newest first; unreadable ones are passed over."""
    found = []
    for stored in list_releases(config):
        try:
            found.append((stored, stored.manifest()))
        except (OpsError, OSError) as error:
            skipped.append(_explain(stored, error))
    return found


def _order(
    store: list[tuple[StoredRelease, Manifest]], live_sha256: str | None, kind: Kind
) -> Iterator[tuple[StoredRelease, ModelSummary, str]]:
    mains = [(stored, _main_of(manifest, kind)) for stored, manifest in store]
    digests = [main.sha256 if main else None for _, main in mains]
    at = digests.index(live_sha256) if live_sha256 and live_sha256 in digests else -1
    for stored, main in mains[at + 1 :]:
        newest = "the newest sound release of another model"
        if main is not None:
            yield stored, main, f"{newest}, before the live one" if at >= 0 else newest
    for stored, main in mains[: at + 1]:
        if main is not None:
            yield stored, main, "the only other release, newer than the live model's"
    for (stored, manifest), digest in zip(store, digests, strict=True):
        for model in manifest.models:
            if model.sha256 != digest:
                yield stored, model, "packed with a release, though not the model it was made for"


def _main_of(manifest: Manifest, kind: Kind) -> ModelSummary | None:
    """The model of a kind that a release was made for, if it has one of it."""
    models = {model.path: model for model in manifest.models}
    main = next((one.main for one in manifest.kinds if one.name == kind.name), manifest.main)
    return models[main] if kind.has(Path(main).name) else None


def _explain(stored: StoredRelease, error: Exception) -> str:
    return f"{stored.name}: {str(error).removeprefix(f'{stored.path.name}: ')}"


def _check_restored(path: Path, sha256: str) -> None:
    """Refuse a restored model that is not the released one.

    Raises:
        ModelError: it differs, or is missing.
    """
    digest = find_model_files(path).digest()
    if digest != sha256:
        raise ModelError(
            f"{path}: not the released model (sha256 {digest[:12]}…, expected {sha256[:12]}…); "
            "remove that folder to restore it anew"
        )
