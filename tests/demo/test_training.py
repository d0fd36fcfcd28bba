from __future__ import annotations

import numpy as np
import pytest
import torch

from opslib.demo.network import build_network
from opslib.demo.training import (
    Generation,
    _choose_previous,
    list_images,
    load_images,
    normalize,
    train,
)
from opslib.inference.preprocess import preprocess

from .conftest import TINY


def generation(epoch: int, top1: float) -> Generation:
    return Generation(epoch, {}, top1=top1, loss=0.0, per_class=())


def test_the_network_gives_logits_for_any_batch():
    net = build_network(5).eval()
    assert net(torch.zeros(3, 3, 80, 80)).shape == (3, 5)


def test_training_sees_what_the_serving_preprocessing_gives(tiny):
    config, _ = tiny
    names = [kind.name for kind in TINY.kinds]
    held = load_images(config.data_root, "val", names, 48)
    paths = [path for path, _ in list_images(config.data_root, "val", names)]
    assert held.pixels.dtype == torch.uint8
    np.testing.assert_allclose(normalize(held.pixels).numpy(), preprocess(paths, 48), atol=1e-5)


def test_the_same_seed_trains_the_same_weights(tiny):
    config, _ = tiny
    names = [kind.name for kind in TINY.kinds]
    steps = []
    first, _ = train(config.data_root, names, TINY, steps.append)
    second, _ = train(config.data_root, names, TINY)
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name])
    assert [step.epoch for step in steps if step.top1 is not None] == [1, 2]


@pytest.mark.parametrize(
    ("top1", "chosen"), [((0.5, 0.946, 0.96, 0.97), 2), ((0.93, 0.95, 0.95, 0.97), 3), ((0.9,), 1)]
)
def test_the_previous_generation_is_the_one_nearest_to_two_points_below(top1, chosen):
    history = [generation(epoch, value) for epoch, value in enumerate(top1, start=1)]
    assert _choose_previous(history, 0.02).epoch == chosen
