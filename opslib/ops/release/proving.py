"""Proving one release: restored for real, compared, served both ways, asked, and cleaned up."""

import errno
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from opslib.core.cards import FileEntry
from opslib.core.config import Config
from opslib.core.errors import BusyError, ConfigError, OpsError, StorageError
from opslib.core.files import sha256_file
from opslib.core.formatting import format_bytes, now_text, plural
from opslib.core.language import tr
from opslib.core.lineage import record_lineage
from opslib.ops.release.manifest import EXPORT_FOLDER, MANIFEST_NAME, Manifest, check_manifest
from opslib.ops.release.record import Proof, ProofRecord, ProofStep
from opslib.ops.release.restore import Restored, restore_release
from opslib.ops.release.scratch import ensure_room, scratch_folder
from opslib.ops.release.signature import Demand
from opslib.ops.release.staged import (
    RestoredService,
    RestoreTestError,
    check_answers,
    check_version,
    make_stand_in,
    start_staged,
)
from opslib.ops.release.store import StoredRelease
from opslib.ops.release.verify import Progress, check_released, silent, verify_release

WORK_NAME = "proof"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NOT_THE_RELEASE = (StorageError, ConfigError, BusyError)
_OTHERS_TRIED = 2
_COPIES = 4  # of a model at most: the one in service, the next, the one that it leaves, a stand-in
STEPS = 7


def carry_out_proof(
    config: Config,
    stored: StoredRelease,
    tell: Progress = silent,
    demand: Demand = "demanded",
) -> ProofRecord:
    """Return whether `stored` restores, after doing it; nothing of it is left behind. Only one may
    be under way: what an earlier one left behind, killed, is cleared first. Raises StorageError:
    the disk is full: that is no fault of the release; ConfigError: this configuration is no good.
    """
    with scratch_folder(config.restore_dir, WORK_NAME, young_s=0.0) as folder:
        test = _Test(config, stored, folder, tell, demand)
        test.run()
    return test.record()


def compare_files(folder: Path, manifest: Manifest) -> int:
    """Read every restored file again, compare it with the manifest, and return the bytes read.
    Raises ReleaseError: a file is missing, too many, or differs; the message names it."""
    found = {}
    links = {f"{EXPORT_FOLDER}/{link}" for link in manifest.links}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and name in links:
            continue  # made when restoring; the manifest says what it meant
        if not path.is_dir() and name != MANIFEST_NAME:
            size = path.stat().st_size
            found[name] = FileEntry(path=name, size=size, sha256=sha256_file(path))
    check_manifest(manifest, found, "restored")
    return sum(entry.size for entry in found.values())


class _Test:
    def __init__(
        self, config: Config, stored: StoredRelease, folder: Path, tell: Progress, demand: Demand
    ) -> None:
        self._config, self._stored, self._folder, self._tell = config, stored, folder, tell
        self._demand: Demand = demand
        self._steps: list[ProofStep] = []
        self._manifest: Manifest | None = None
        self._notes: list[str] = []
        self._started = time.monotonic()

    def run(self) -> None:
        """Go through the steps; the first that fails ends the test."""
        try:
            restored = self._restore()
            self._check_others(restored)
            if restored.manifest.contract_of(restored.manifest.main) == "classifier":
                self._serve(restored)  # otherwise none of it is one that our service serves
        except (OpsError, OSError):
            if all(step.ok for step in self._steps):
                raise

    def record(self) -> ProofRecord:
        """Return what was found."""
        failed = next((step for step in self._steps if not step.ok), None)
        manifest = self._manifest
        return ProofRecord(
            lineage=record_lineage(),
            release=self._stored.name,
            size_bytes=self._stored.size_bytes,
            model=manifest.main if manifest else None,
            model_sha256=manifest.main_model.sha256 if manifest else None,
            steps=tuple(self._steps),
            proof=Proof(
                release=self._stored.name,
                content_id=manifest.content_id if manifest else None,
                proved_at_utc=now_text(),
                ok=failed is None,
                stages=tuple(step.name for step in self._steps if step.ok),
                problem=f"{failed.name}: {failed.found}" if failed else None,
                note="; ".join(dict.fromkeys(self._notes)) or None if failed is None else None,
                took_s=round(time.monotonic() - self._started, 3),
            ),
        )

    def _restore(self) -> Restored:
        stored, config = self._stored, self._config
        with self._step("verify") as found:
            demand = self._demand
            seen = verify_release(stored.path, config=config, load_models=False, demand=demand)
            who = f"; {seen.signature.describe()}" if seen.signature else ""
            found.append(f"{format_bytes(stored.size_bytes)} read: archive and manifest agree{who}")
        with self._step("restore") as found:
            target = self._folder / stored.name
            # Once overridden it is recorded: the second time nobody asks.
            again: Demand = "demanded" if demand == "demanded" else "not asked"
            restored = restore_release(
                stored.path, target, config=config, load_models=False, demand=again
            )
            self._manifest = restored.manifest
            found.append(f"{plural(len(restored.manifest.files), 'file')} in a fresh folder")
        with self._step("compare") as found:
            size = compare_files(restored.folder, restored.manifest)
            found.append(f"{format_bytes(size)} on disk, each byte as the manifest lists it")
        return restored

    def _check_others(self, restored: Restored) -> None:
        """Prove what our service does not serve: every model that the release is about but the
        main one where that is a classifier. Each is loaded and asked what its card promises."""
        manifest = restored.manifest
        for model in manifest.models:
            what = manifest.mains.get(model.path)
            is_any = manifest.contract_of(model.path) == "any"
            if what is None or (model.path == manifest.main and not is_any):
                continue
            with self._step(f"{what} by itself") as found:
                seen = check_released(manifest, model, restored.folder, self._config, "restored")
                asked = "not asked: its card has no golden images"
                if seen.golden_images:
                    within = f"as its card says, within {seen.golden_max_abs_diff:.1g}"
                    asked = f"{plural(seen.golden_images, 'golden image')}: every output {within}"
                else:
                    self._notes.append(tr("its {what} has no golden images to be asked", what=what))
                found.append(f"{PurePosixPath(model.path).name} loads; {asked}")

    def _serve(self, restored: Restored) -> None:
        model, main = restored.model, restored.manifest.main_model
        sha256 = main.sha256
        if main.sidecars:  # a model with weights files is copied by the service that loads it
            ensure_room(self._folder, _COPIES * main.size_bytes, f"serving {model.name} for a test")
        work = self._folder / "staging"
        work.mkdir()
        with ExitStack() as stack:
            with self._step("start with MODEL_PATH") as found:
                started = start_staged(self._config, restored.folder, work, model)
                service = stack.enter_context(started)
                service.check_health()
                check_version(service, sha256)
                found.append(f"/version says sha256 {sha256[:12]}…")
            self._ask(service, model, "answers")
            with self._step("switch by /reload") as found:
                other = self._switch_away(service, restored, work)
                if service.reload(model).get("resident"):
                    raise RestoreTestError("/reload did not read the restored model anew")
                generation = check_version(service, sha256).get("generation")
                found.append(f"from {other} back to sha256 {sha256[:12]}…, generation {generation}")
            self._ask(service, model, "answers again")

    def _switch_away(self, service: RestoredService, restored: Restored, work: Path) -> str:
        manifest, main = restored.manifest, restored.manifest.main_model
        kind = manifest.kind_of(main.path)
        alike = [one for one in manifest.models if kind is None or kind.has(one.path)]
        others = [one for one in alike if one.sha256 != main.sha256]
        for other in others[:_OTHERS_TRIED]:
            try:
                service.reload(restored.folder / other.path)
            except RestoreTestError:
                continue  # of other classes, for instance: it need not follow this one
            check_version(service, other.sha256)
            return Path(other.path).name
        service.reload(make_stand_in(restored.model, work / "other"))
        if service.version().get("model_sha256") == main.sha256:
            raise RestoreTestError("/version does not change when another model is switched in")
        return "a stand-in of another digest"

    def _ask(self, service: RestoredService, model: Path, name: str) -> None:
        with self._step(name) as found:
            differences = check_answers(service, model)
            if not differences:
                self._notes.append(tr("its model has no golden images to be asked"))
                found.append(f"not asked: {self._notes[-1]}")
                return
            within = f"the card's classes, probabilities within {max(differences):.1g}"
            found.append(f"{plural(len(differences), 'golden image')} over /predict: {within}")

    @contextmanager
    def _step(self, name: str) -> Iterator[list[str]]:
        others = len(self._manifest.mains) - 1 if self._manifest else 0
        self._tell(len(self._steps) / (STEPS + others), f"{self._stored.name}: {name}")
        found: list[str] = []
        started = time.monotonic()
        problem: str | None = None
        try:
            yield found
        except _NOT_THE_RELEASE:
            raise
        except OpsError as error:  # on one line, without what its reader knows
            said = str(error).replace(f"{self._folder}/", "")
            problem = " ".join(said.removeprefix(f"{self._stored.path.name}: ").split())
            raise
        except OSError as error:
            if error.errno in _FULL_DISK:
                where = f" ({error.filename})" if error.filename else ""
                raise StorageError(f"restore test: {error.strerror}{where}") from error
            problem = f"{error.filename or self._stored.path}: {error.strerror or error}"
            raise
        finally:
            ended = problem or next(iter(found), None)
            if ended is not None:
                took_s = round(time.monotonic() - started, 3)
                step = ProofStep(name=name, ok=problem is None, found=ended, took_s=took_s)
                self._steps.append(step)
