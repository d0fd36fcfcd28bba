"""Answers that are not wholly of one model: what a request must never get during a switch."""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Sequence

from opslib.ops.drill.record import DrillEvent
from opslib.ops.drill.windows import mark_of
from opslib.serving.load import Sample


def find_mixed(samples: Sequence[Sample], events: Sequence[DrillEvent]) -> dict[int, str]:
    """Return the answers that mix models, by their index, each with what is wrong.

    - the body and the header name different generations;
    - one generation stands for two models;
    - the prediction is not what this model says of this image otherwise;
    - the model before answered a request that was due after the switch was confirmed.
    """
    found: dict[int, str] = {}
    model_of: dict[int, Counter[str]] = defaultdict(Counter)
    said: dict[tuple[str, int], Counter[tuple[int, ...]]] = defaultdict(Counter)
    good = [(index, one) for index, one in enumerate(samples) if not one.failed]
    for _, one in good:
        model = _model(one)
        if one.generation is not None and model is not None:
            model_of[one.generation][model] += 1
        said[model or "", one.image][one.class_ids] += 1
    usual = {key: count.most_common(1)[0][0] for key, count in said.items()}
    for index, one in good:
        model = _model(one)
        if one.header_generation is not None and one.header_generation != one.generation:
            found[index] = "body and header name different generations"
        elif one.generation in model_of and model != _most(model_of[one.generation]):
            found[index] = "one generation stands for two models"
        elif usual[model or "", one.image] != one.class_ids:
            found[index] = "the prediction is another model's"
    for index in _find_stale(samples, events) - found.keys():
        found[index] = "the model before answered after the switch was confirmed"
    return found


def _model(sample: Sample) -> str | None:
    return sample.model_sha256 or sample.version_tag


def _most(count: Counter[str]) -> str:
    return count.most_common(1)[0][0]


def _find_stale(samples: Sequence[Sample], events: Sequence[DrillEvent]) -> set[int]:
    """Requests that were due after a switch was confirmed, answered before anything else was
    done, and got the model that had been there before it.

    Of two switches at once either may come last, so that the model before may be the right one.
    """
    ordered = sorted(events, key=lambda event: event.start_s)
    starts = [event.start_s for event in ordered]
    found = set()
    for index, one in enumerate(samples):
        at = bisect(starts, one.due_s) - 1
        if one.failed or at < 0:
            continue
        last = ordered[at]
        switched = last.status == 200 and last.first_answer_s is not None
        if not switched or last.mark_before is None or one.due_s <= last.end_s:
            continue
        if at > 0 and ordered[at - 1].end_s > last.start_s:
            continue
        undisturbed = at + 1 == len(starts) or one.due_s + one.latency_ms / 1000 < starts[at + 1]
        if undisturbed and mark_of(one) == last.mark_before:
            found.add(index)
    return found
