"""Switching models in stages; whatever fails names its stage and the old model serves on.

    path      inside the allowed folders, no URL, no traversal, no link out
    read      the file and its sidecars: complete, readable, copied where ONNX Runtime would map
              them (`own_copy`), digested; the card, where there is one
    files     the digests are those of the model's card (without a card: unverified)
    load      a child process, niced and limited, can load it
    contract  it takes and answers what the model in service does, same classes
    outputs   its answers are finite and depend on the image
    golden    the card's golden images get the card's answers
    open      this process loads it, by path, off the event loop
    warmup    the first runs, and the golden images once more on the session that will serve

Then the switch: one assignment, committed to the state file before the answer is sent.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from opslib.core.errors import BusyError, ModelError, OpsError, StorageError
from opslib.core.formatting import utc_now
from opslib.core.models import ModelFiles, is_onnx
from opslib.core.served import ServedModel, WantedModel, keep_served
from opslib.inference.causes import ModelCheckError, find_hint
from opslib.inference.checks import check_model
from opslib.inference.contract import check_classes_kept, check_outputs, probe_images
from opslib.inference.find_model import find_card
from opslib.inference.golden import check_golden, load_golden
from opslib.inference.preprocess import Preprocessor
from opslib.serving.generations import Generation, Generations
from opslib.serving.loaded import Candidate, LoadedModel, load_candidate, read_candidate
from opslib.serving.logs import EVENT_LOGGER
from opslib.serving.own_copy import confine_path, confine_sidecars, copy_model
from opslib.serving.settings import ServiceSettings
from opslib.serving.standing import Standing, find_shortfall

_log = logging.getLogger(f"{EVENT_LOGGER}.reload")


class StageError(ModelError):
    """A model was refused; `stage` says where, `hint` what to do about it."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.hint = find_hint(stage, message)


@dataclass(frozen=True)
class Switch:
    """A finished switch: the new generation and what it took."""

    generation: Generation
    resident: bool
    stages_ms: dict[str, float]
    warning: str | None = None


@dataclass
class Reloader:
    """Takes one model at a time through the stages and into service.

    `announce` is told of a model before it is touched; `busy` is whether a reload is under way.
    """

    settings: ServiceSettings
    generations: Generations
    preprocessor: Preprocessor
    standing: Standing
    announce: Callable[[Path | None], None] = lambda _coming: None
    busy: bool = False
    _stages_ms: dict[str, float] = field(default_factory=dict)

    async def reload(self, text: str) -> Switch:
        """Switch as `reload_now`, which may raise `StageError`; the event loop stays free."""
        self.busy = True
        try:
            return await asyncio.to_thread(self.reload_now, text)
        finally:
            self.busy = False

    def reload_now(self, text: str) -> Switch:
        """Switch to the model that `text` names, on this thread."""
        self._stages_ms = {}
        with self._stage("path"):
            folders = self.settings.model_dirs
            path = confine_path(text, folders, self.settings.config.export_dir)
        with self._announced(path):
            resident = self._find_resident(path)
            model = resident or self._prepare(path, confined=True)
            return self._switch(model, resident=resident is not None)

    def start_with(self, path: Path, wanted: WantedModel | None = None) -> Switch:
        """Switch to the model at `path`, wherever it lies: the operator's own choice. Where
        `wanted` is another, the service says so."""
        self._stages_ms = {}
        with self._announced(path):
            return self._switch(self._prepare(path, confined=False), wanted=wanted)

    def _find_resident(self, path: Path) -> LoadedModel | None:
        """The model loaded from `path`, if neither its files nor its card have changed since."""
        model = self.generations.find_resident(path)
        if model is not None:
            with suppress(OpsError, OSError):  # a damaged card is refused by its stage
                if find_card(self.settings.config, path) == model.candidate.card:
                    return model
        return None

    @contextmanager
    def _announced(self, path: Path) -> Iterator[None]:
        """Tell others of `path` before it is touched, and then what is used: nobody deletes a model
        between its being read and its being in service."""
        self.announce(path)
        try:
            yield
        finally:
            self.announce(None)

    def _prepare(self, path: Path, *, confined: bool) -> LoadedModel:
        with ExitStack() as stack:

            def take(files: ModelFiles) -> ModelFiles:
                if confined:
                    confine_sidecars(files, self.settings.model_dirs)
                return self._take_copy(files, stack)

            with self._stage("read"):
                candidate = read_candidate(self.settings.config, path, take)
            with _as_found(candidate):
                return self._open(candidate)

    def _take_copy(self, files: ModelFiles, stack: ExitStack) -> ModelFiles:
        """Return the service's own copy of a model that would be mapped; see `own_copy`."""
        if not files.sidecars:
            return files
        try:
            return stack.enter_context(copy_model(files, self.settings.config.exp_dir))
        except StorageError as error:
            if self.generations.current is not None:
                raise
            # Nobody is served yet whom it could hold up, and a service without a model is worse.
            _log.warning("%s: its weights are read into memory instead", error)
            return files

    def _open(self, candidate: Candidate) -> LoadedModel:
        if is_onnx(candidate.path):
            self._try(candidate)
        with self._stage("open"):
            model = load_candidate(self.settings.config, candidate)
        with ExitStack() as stack:
            stack.callback(model.close)
            with self._stage("warmup"):
                self._warm_up(model)
            stack.pop_all()
        return model

    def _try(self, candidate: Candidate) -> None:
        """Check the candidate without letting it near this process."""
        config, current = self.settings.config, self.generations.current
        previous = current.model.contract if current else None
        with self._stage("trial"):
            check_model(
                candidate.own.path,
                candidate.card,
                preprocess=self.preprocessor.run_checked,
                img_size=config.preprocess.img_size,
                previous=previous,
                card_folder=candidate.path.parent,
                limits=config.reload,
            )
            if previous is not None:
                check_classes_kept(candidate.path, candidate.card, previous)

    def _warm_up(self, model: LoadedModel) -> None:
        probes, config = probe_images(model.img_size), self.settings.config
        check_outputs(model.path, model.answer(probes), differing=len(probes))
        model.try_together(probes, config.parity)
        if model.engine.facts.provider != "CPU":  # a card makes a plan for each size of batch
            for count in (config.uploads.batch_max_images, *range(model.together, 0, -1)):
                model.answer(probes[[0] * count])
        card = model.candidate.card
        if card is not None and card.golden:
            run = self.preprocessor.run_checked
            golden = load_golden(card, model.path.parent, run, model.img_size)
            check_golden(model.path, model.run(golden), card.golden)

    def _switch(
        self,
        model: LoadedModel,
        *,
        resident: bool = False,
        wanted: WantedModel | None = None,
    ) -> Switch:
        shortfall = find_shortfall(wanted, model.path, model.sha256)
        started = time.perf_counter()
        generation = self.generations.switch(model)
        self._stages_ms["switch"] = since_ms(started)
        self.standing.settle(shortfall)
        forgotten = self._commit(generation, shortfall.wanted if shortfall else None)
        gaps = model.candidate.gaps
        fields = {
            "generation": generation.number,
            "model_path": str(model.path),
            "model_sha256": model.sha256,
            "verified": model.candidate.verified,
            "resident": resident,
            "unbatched": model.unbatched,
            "stages_ms": self._stages_ms,
        }
        level, tag = logging.WARNING if gaps else logging.INFO, model.candidate.version_tag
        told = f"{tag}; {gaps}" if gaps else tag
        _log.log(level, "switched to %s", told, extra={"fields": fields})
        warning = "; ".join(filter(None, (forgotten, gaps))) or None
        return Switch(generation, resident, self._stages_ms, warning)

    def _commit(self, generation: Generation, wanted: WantedModel | None) -> str | None:
        """Keep the switch for the next start; a full disk must not stop a rollback."""
        model, config = generation.model, self.settings.config
        served = ServedModel(
            path=model.path,
            sha256=model.sha256,
            version_tag=model.candidate.version_tag,
            generation=generation.number,
            switched_at_utc=utc_now().isoformat(timespec="seconds"),
        )
        with self._stage("commit"):
            try:
                keep_served(config, served, wanted)
            except (StorageError, BusyError) as error:
                warning = f"in service, but a restart will not remember it: {error}"
                _log.error(warning)
                return warning
        return None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage; name it in whatever goes wrong."""
        started = time.perf_counter()
        try:
            yield
        except ModelCheckError as error:
            raise StageError(error.stage, str(error)) from error
        except OpsError as error:
            raise StageError(name, str(error)) from error
        except OSError as error:
            raise StageError(name, f"{error.filename or 'model'}: {error.strerror}") from error
        finally:
            self._stages_ms[name] = since_ms(started)


@contextmanager
def _as_found(candidate: Candidate) -> Iterator[None]:
    """Name the model where an error of the block names the service's own copy of it."""
    own, found = candidate.own.path.parent, candidate.path.parent
    try:
        yield
    except StageError as error:
        raise StageError(error.stage, str(error).replace(str(own), str(found))) from error


def since_ms(started: float) -> float:
    """Return the milliseconds since a moment of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)
