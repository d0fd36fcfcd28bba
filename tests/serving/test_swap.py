"""Switching under load: nobody notices, nothing is mixed, and back is instant."""

from __future__ import annotations

import numpy as np
import pytest

from opslib.core.models import find_model_files
from opslib.inference.postprocess import softmax
from opslib.inference.preprocess import preprocess
from opslib.inference.trial import try_model
from opslib.serving.load import LoadPlan, start_load
from tests.serving.conftest import SIZE, Live, write_carded


def test_swaps_under_constant_load_fail_no_request_and_mix_no_generations(live: Live) -> None:
    first, second = live.place.first, live.place.second
    live.reload(first)
    expected = {}
    for path in (first, second):
        live.reload(path)
        answers = [live.predict(image).json()["class_id"] for image in live.place.images]
        expected[find_model_files(path).digest()] = answers
    live.reload(first)
    plan = LoadPlan(
        url=live.service.url, images=tuple(live.place.images), requests=600, rate_per_s=150
    )
    switched = []
    with start_load(plan, live.service.key) as load:
        while load.running:
            for path in (second, first):
                switched.append(live.reload(path).json())
        result = load.wait(30)
    assert not result.failures, result.failures[0]
    assert len({sample.generation for sample in result.samples}) >= 3
    digest_of = {one["generation"]: one["model_sha256"] for one in switched}
    for sample in result.samples:
        assert sample.generation == sample.header_generation
        assert sample.model_sha256 is not None
        if sample.generation in digest_of:
            assert digest_of[sample.generation] == sample.model_sha256
        assert sample.class_ids == (expected[sample.model_sha256][sample.image],)


def test_going_back_to_a_resident_model_loads_nothing(live: Live) -> None:
    live.reload(live.place.first)
    live.reload(live.place.second)
    answer = live.reload(live.place.first).json()
    assert answer["resident"] is True
    assert set(answer["stages_ms"]) == {"path", "switch", "commit"}
    assert live.predict(live.place.images[0]).json()["generation"] == answer["generation"]


def test_a_load_counts_latency_from_when_a_request_was_due(live: Live) -> None:
    plan = LoadPlan(
        url=live.service.url, images=tuple(live.place.images), requests=50, rate_per_s=500
    )
    with start_load(plan, live.service.key) as load:
        result = load.wait(30)
    assert [sample.due_s for sample in result.samples] == [index / 500 for index in range(50)]
    assert result.latency_ms(0.5) > 0
    assert live.service.key not in result.to_json()


@pytest.mark.parametrize("head", ["Softmax", "Sigmoid"])
def test_a_model_with_its_activation_inside_answers_what_it_says(live: Live, head: str) -> None:
    place = live.place
    headed = write_carded(place.export / f"{head}.onnx", place.images, seed=1, head=head)
    logits = try_model(place.first, images=preprocess([str(place.images[0])], SIZE)).answered()[0]
    wanted = softmax(logits) if head == "Softmax" else 1 / (1 + np.exp(-logits))
    assert live.reload(headed).status_code == 200
    answer = live.predict(place.images[0]).json()
    assert live.reload(place.first).status_code == 200
    assert answer["class_id"] == int(wanted.argmax())
    assert answer["confidence"] == pytest.approx(float(wanted.max()), abs=1e-3)
