"""Is this model one of its kind? Asked on this host before it is posted to a service that gives no
digest: such a service is foreign, and may load whatever it is told to."""

from functools import cached_property
from pathlib import Path

from opslib.core.config import Config
from opslib.core.errors import InputError, ModelError, OpsError
from opslib.core.kinds import Kind
from opslib.core.models import follow_model
from opslib.inference.causes import ModelCheckError, Preprocess
from opslib.inference.checks import check_model
from opslib.inference.contract import Contract, check_classes_kept, describe_tensors
from opslib.inference.find_model import find_card
from opslib.inference.preprocess import load_preprocessor, preprocess
from opslib.inference.trial import TensorFacts, TrialResult, try_model
from opslib.serving.live import LiveVersion


class Precheck:
    """Checks models of one kind that are to follow `live`, as the service says it; each once."""

    def __init__(self, config: Config, kind: Kind, live: LiveVersion | None) -> None:
        self._config, self._kind, self.live = config, kind, live
        self._done: dict[Path, str | None] = {}

    def __call__(self, path: Path) -> str | None:
        """Return what could not be checked of the model at `path`, or None; a `ModelError` where it
        is not fit to be served, or not of the kind or contract of `live`."""
        if self.live is not None and self.live.sha256 is not None:
            return None  # the service checks it itself, and says afterwards what it serves
        if not path.exists():
            return f"{path} was not checked: it is not on this host"
        real = follow_model(path)
        if real not in self._done:
            self._done[real] = self._check(real)
        return self._done[real]

    def _check(self, path: Path) -> str | None:
        if not self._kind.has(path.name):
            problem = f"is no {self._kind.name} model by its name; expected {self._kind.pattern}"
            raise ModelError(f"{path}: {problem}")
        card, note = find_card(self._config, path), None
        run: Preprocess = preprocess
        section = self._config.preprocess
        if card is not None and card.golden_images:
            try:
                run = load_preprocessor(section.function, self._config.code_root).run_checked
            except OpsError as error:
                card = card.model_copy(update={"golden": (), "golden_outputs": ()})
                note = f"{path}: its golden images were not compared: {error}"
        live, classifier = self._live, self._kind.contract == "classifier"
        previous = Contract.from_trial(*live) if live is not None and classifier else None
        found = check_model(
            path,
            card,
            preprocess=run,
            img_size=section.img_size,
            previous=previous,
            limits=self._config.reload,
            contract=self._kind.contract,
        )
        if previous is not None:
            check_classes_kept(path, card, previous)
        elif live is not None:
            _check_alike(path, found.trial, live[0])
        return note

    @cached_property
    def _live(self) -> tuple[TrialResult, tuple[str, ...]] | None:
        """What the model in service takes and answers, and its class names, where it is of the
        kind, lies on this host and can be loaded."""
        if self.live is None or not self.live.model_path:
            return None
        path = self._config.resolve(self.live.model_path)
        if not path.is_file() or not (self._kind.sole or self._kind.has(follow_model(path).name)):
            return None
        try:
            trial, card = try_model(path, limits=self._config.reload), find_card(self._config, path)
        except (ModelError, InputError):
            return None
        return trial, card.class_names if card else ()


def _check_alike(path: Path, found: TrialResult, live: TrialResult) -> None:
    """Refuse a model that takes or answers other tensors than the one in service: how many, whether
    of floats or integers, and with how many axes. Sizes and precision may change."""

    def kinds_of(tensors: tuple[TensorFacts, ...]) -> list[tuple[str, int]]:
        return [(one.dtype.rstrip("0123456789"), len(one.shape)) for one in tensors]

    pairs = {"takes": (found.inputs, live.inputs), "answers": (found.outputs, live.outputs)}
    for verb, (new, old) in pairs.items():
        if kinds_of(new) != kinds_of(old):
            said = f"{describe_tensors(new)}; the model in service {describe_tensors(old)}"
            raise ModelCheckError("contract", f"{path}: {verb} {said}")
