"""Whose change it is: the model's, the runtime's or the host's."""

from __future__ import annotations

import pytest

from opslib.ops.bench.attribution import Moved, attribute


def moved(
    engine: str,
    reference_pct: float = 0.0,
    *,
    model_pct: float = 0.0,
    usual_pct: float = 1.0,
    end_to_end_pct: float | None = None,
) -> Moved:
    own_moved = abs(model_pct) > 2
    return Moved(engine, model_pct, own_moved, reference_pct, usual_pct, end_to_end_pct)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], None),
        (
            [moved("onnx"), moved("torch", 1.0)],
            "Neither the model nor the reference network moved.",
        ),
        (
            [moved("onnx", 8.0), moved("torch", 9.0)],
            "the reference network is 8.0 % slower in both engines: the host, not the model.",
        ),
        (
            [moved("onnx", 8.0, usual_pct=6.0), moved("torch", 9.0)],
            "the reference network is 8.0 % slower (runs differ by ±6 %) in both engines: the "
            "host, not the model.",
        ),
        (
            [moved("onnx", -8.0), moved("torch")],
            "the reference network is 8.0 % faster in ONNX Runtime alone: the runtime or its "
            "settings.",
        ),
        (
            [moved("onnx", 8.0)],
            "the reference network is 8.0 % slower too: the host or the runtime, not the model.",
        ),
        (
            [moved("onnx", model_pct=5.0), moved("torch")],
            "ONNX Runtime: the model itself is 5.0 % slower against the reference network in the "
            "same process.",
        ),
        (
            [moved("onnx", end_to_end_pct=15.0), moved("torch")],
            "ONNX Runtime: end to end is 15.0 % slower against the reference network and inference "
            "alone is 0.0 % faster: the preprocessing.",
        ),
        (
            [moved("onnx", model_pct=5.0, end_to_end_pct=3.0), moved("torch")],
            "ONNX Runtime: the model itself is 5.0 % slower against the reference network in the "
            "same process.",
        ),
        (
            [moved("onnx", 8.0, model_pct=5.0), moved("torch", 8.0)],
            "ONNX Runtime: the model itself is 5.0 % slower against the reference network in the "
            "same process; the reference network is 8.0 % slower in both engines: the host.",
        ),
    ],
)
def test_a_change_is_put_down_to_whose_figure_moved(found: list[Moved], told: str | None) -> None:
    assert attribute(found) == told
