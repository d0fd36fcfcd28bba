"""Does a variant answer as well as the model it came from, on the same images?

Two answers, both given. The *rule*: the drop seen is within the limit. The *proof*: the interval
of the drop is within it. Without labels the share of changed answers bounds the drop from above.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opslib.core.errors import ModelError
from opslib.inference.engine import Engine, EngineRequest
from opslib.inference.opening import open_engine
from opslib.inference.postprocess import to_probabilities
from opslib.inference.preprocess import Preprocessor
from opslib.ops.quantize.labels import Labels
from opslib.ops.quantize.record import (
    Accuracy,
    BatchDependence,
    ClassFlips,
    Flip,
    FlipKind,
    Proof,
)
from opslib.telling.operation import Progress
from opslib.timing import tango
from opslib.timing.tango import PairedCounts, fewest_images, images_to_settle

CHUNK = 64
_KINDS: tuple[FlipKind, ...] = ("lost", "gained", "other")


@dataclass(frozen=True)
class Predictions:
    """One model's answers: class `[N]`, its softmax value `[N]`, and the mean squared difference
    of each image's softmax values from the reference model's `[N]`."""

    classes: NDArray[np.int64]
    confidences: NDArray[np.float32]
    mse: NDArray[np.float64]


def predict(
    requests: Mapping[str, EngineRequest],
    names: Sequence[str],
    preprocessor: Preprocessor,
    img_size: int,
    report: Progress = lambda _share, _what: None,
) -> dict[str, Predictions]:
    """Return each model's answers to image files; the first model is the reference. Every image is
    read and preprocessed once for all models, a chunk at a time. Raises ModelError: a model answers
    with a NaN, or with another number of classes."""
    answers: dict[str, list[tuple[NDArray[Any], ...]]] = defaultdict(list)
    with ExitStack() as stack:
        engines = {name: stack.enter_context(open_engine(one)) for name, one in requests.items()}
        for start in range(0, len(names), CHUNK):
            report(start / len(names), f"accuracy: {start:,} of {len(names):,} images")
            batch = preprocessor.run_checked(list(names[start : start + CHUNK]), img_size)
            reference: NDArray[np.float32] | None = None
            for name, engine in engines.items():
                answer = run_batches(engine, batch, requests[name].batch_size)
                reference = answer if reference is None else reference
                _check_answer(name, requests[name], answer, reference)
                mse = ((answer.astype(np.float64) - reference) ** 2).mean(axis=-1)
                answers[name].append((answer.argmax(axis=-1), answer.max(axis=-1), mse))
    return {
        name: Predictions(*map(np.concatenate, zip(*parts, strict=True)))
        for name, parts in answers.items()
    }


def run_batches(
    engine: Engine, images: NDArray[np.float32], batch_size: int
) -> NDArray[np.float32]:
    """Return probabilities `[N, C]` for images `[N, 3, H, W]`, answered `batch_size` at a time. A
    model of fixed batch size gets its own, the last batch filled up."""
    size = engine.facts.input_shape[0] or batch_size
    count = len(images)
    if engine.facts.input_shape[0] and count % size:
        images = np.concatenate([images, images[np.arange(-count % size) % count]])
    parts = [engine.run(images[start : start + size]) for start in range(0, len(images), size)]
    return to_probabilities(np.concatenate(parts)[:count], engine.facts.postprocess)


def check_batch_dependence(
    request: EngineRequest, names: Sequence[str], preprocessor: Preprocessor, img_size: int
) -> BatchDependence | None:
    """Compare answers given to images alone and in batches; None where the batch is fixed."""
    changed, largest = 0, 0.0
    with open_engine(request) as engine:
        if engine.facts.input_shape[0]:
            return None
        for start in range(0, len(names), CHUNK):
            batch = preprocessor.run_checked(list(names[start : start + CHUNK]), img_size)
            alone = run_batches(engine, batch, 1)
            shared = run_batches(engine, batch, request.batch_size)
            changed += int((alone.argmax(-1) != shared.argmax(-1)).sum())
            largest = max(largest, float(np.abs(alone - shared).max()))
    return BatchDependence(
        n=len(names), batch_size=request.batch_size, changed=changed, max_abs_diff=largest
    )


def judge_accuracy(
    before: Predictions, after: Predictions, labels: Labels, max_drop_pp: float
) -> Accuracy:
    """Return how far the answers `after` fall behind those `before`, by the rule and the proof."""
    n = len(before.classes)
    flipped = int((before.classes != after.classes).sum())
    common: dict[str, Any] = {
        "n": n,
        "flipped": flipped,
        "disagreement_pct": 100 * flipped / n,
        "max_drop_pp": max_drop_pp,
        "mse_mean": float(after.mse.mean()),
        "mse_p99": float(np.quantile(after.mse, 0.99)),
    }
    if not labels.known:
        return Accuracy(**common, **_judge_agreement(n, flipped, max_drop_pp))
    right_before, right_after = before.classes == labels.ids, after.classes == labels.ids
    counts = PairedCounts(
        n, int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
    )
    interval = tango.drop_interval(counts)
    limit = max_drop_pp / 100
    proof = judge_proof(interval.low, interval.high, limit)
    return Accuracy(
        **common,
        lost=counts.lost,
        gained=counts.gained,
        baseline_top1_pct=100 * float(right_before.mean()),
        top1_pct=100 * float(right_after.mean()),
        drop_pp=100 * counts.drop,
        drop_ci90_pp=(100 * interval.low, 100 * interval.high),
        drop_max_pp=100 * interval.high,
        mcnemar_p=tango.mcnemar_p(counts),
        rule="met" if counts.drop <= limit + 1e-12 else "missed",
        proof=proof,
        images_to_settle=images_to_settle(counts, limit) if proof == "inconclusive" else None,
    )


def judge_proof(low: float, high: float, limit: float) -> Proof:
    """Return what an interval of the drop says of a limit, in the same unit."""
    if high <= limit:
        return "proven"
    return "disproven" if low > limit else "inconclusive"


def list_flips(
    paths: Sequence[Path],
    before: Predictions,
    after: Predictions,
    labels: Labels,
    class_names: Sequence[str],
    folder: Path | None = None,
) -> tuple[Flip, ...]:
    """Return every image that is answered otherwise, named from `folder`, those lost first."""
    flips = []
    for at in np.flatnonzero(before.classes != after.classes).tolist():
        old, new, label = int(before.classes[at]), int(after.classes[at]), int(labels.ids[at])
        kind: FlipKind = "lost" if old == label else "gained" if new == label else "other"
        flips.append(
            Flip(
                image=_tell(paths[at], folder),
                label=_name(label, class_names) if label >= 0 else None,
                before=_name(old, class_names),
                before_confidence=float(before.confidences[at]),
                after=_name(new, class_names),
                after_confidence=float(after.confidences[at]),
                kind=kind,
            )
        )
    return tuple(sorted(flips, key=lambda one: (_KINDS.index(one.kind), one.image)))


def count_flips(flips: Sequence[Flip], sizes: Mapping[str, int]) -> tuple[ClassFlips, ...]:
    """Return the flips by class, most first; `sizes` is how many images each class has."""
    groups: dict[str, Counter[FlipKind]] = defaultdict(Counter)
    for flip in flips:
        groups[flip.label or flip.before][flip.kind] += 1
    rows = [
        ClassFlips(name=name, count=sizes.get(name, 0), **{kind: kinds[kind] for kind in _KINDS})
        for name, kinds in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.lost, -row.gained, -row.other, row.name)))


def class_sizes(before: Predictions, labels: Labels, class_names: Sequence[str]) -> dict[str, int]:
    """Return how many images each class has, by label or else by the reference's answer."""
    ids = labels.ids if labels.known else before.classes
    return {_name(number, class_names): count for number, count in Counter(ids.tolist()).items()}


def _judge_agreement(n: int, flipped: int, max_drop_pp: float) -> dict[str, Any]:
    """Without labels: at most the changed answers were lost, so their share bounds the drop."""
    limit, share = max_drop_pp / 100, flipped / n
    upper = tango.binomial_interval(flipped, n).high
    settle = None
    if share < limit < upper:
        usual = images_to_settle(PairedCounts(n, flipped, 0), limit) or 0
        settle = max(fewest_images(limit), usual)
    return {
        "drop_max_pp": 100 * upper,
        "rule": "met" if share <= limit + 1e-12 else "undecided",
        "proof": "proven" if upper <= limit else "inconclusive",
        "images_to_settle": settle,
    }


def _check_answer(
    name: str, request: EngineRequest, answer: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    if answer.shape != reference.shape:
        raise ModelError(
            f"{request.path}: {name} answers {answer.shape[-1]} classes, "
            f"the float32 model {reference.shape[-1]}"
        )
    if not np.isfinite(answer).all():
        raise ModelError(f"{request.path}: {name} answers with a NaN or an infinity")


def _tell(path: Path, folder: Path | None) -> str:
    if folder is not None and path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return f"{path.parent.name}/{path.name}"


def _name(number: int, class_names: Sequence[str]) -> str:
    return class_names[number] if 0 <= number < len(class_names) else f"class {number}"
