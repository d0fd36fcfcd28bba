"""Answers that are not wholly of one model are found, and good ones are left alone."""

from __future__ import annotations

from typing import Any

from opslib.ops.drill.analysis import find_mixed
from tests.ops.drill.makers import make_event, make_sample, make_steady


def test_a_clean_switch_mixes_nothing() -> None:
    in_flight = make_sample(1.4, 1, latency_ms=300)  # began on the old model and ended on it
    samples = [*make_steady(0, 1.5, 1), in_flight, *make_steady(1.5, 4, 2)]
    assert find_mixed(samples, [make_event()]) == {}


def test_body_and_header_must_name_the_same_generation() -> None:
    samples = [*make_steady(0, 1), make_sample(1.0, 1, header_generation=2)]
    assert find_mixed(samples, []) == {100: "body and header name different generations"}


def test_a_generation_stands_for_one_model() -> None:
    samples = [*make_steady(0, 1), make_sample(1.0, 1, model_sha256="m2")]
    assert find_mixed(samples, [])[100] == "one generation stands for two models"


def test_the_prediction_must_be_this_models() -> None:
    samples = [*make_steady(0, 1), *make_steady(1, 2, 2), make_sample(2.0, 2, class_ids=(1,))]
    assert find_mixed(samples, []) == {200: "the prediction is another model's"}


def test_images_are_told_apart() -> None:
    samples = [
        *make_steady(0, 1),
        *(make_sample(1 + i, 1, image=7, class_ids=(9,)) for i in (0, 1)),
    ]
    assert find_mixed(samples, []) == {}


def test_the_old_model_must_not_answer_after_the_switch_was_confirmed() -> None:
    samples = [*make_steady(0, 1.5, 1), *make_steady(1.5, 4, 2), make_sample(3.0, 1)]
    found = find_mixed(samples, [make_event()])
    assert found == {len(samples) - 1: "the model before answered after the switch was confirmed"}


def test_an_answer_that_may_belong_to_the_next_switch_is_not_blamed() -> None:
    back = make_event("rollback", 3.0, mark_before="m2", mark_after="m1")
    there = make_event(mark_before="tag-m1", mark_after="tag-m2")

    def plain(due: float, number: int, **changes: float) -> object:
        tag = f"tag-m{number}"
        return make_sample(
            due, None, model_sha256=None, version_tag=tag, class_ids=(number,), **changes
        )

    samples = [plain(0.5, 1), plain(2.0, 2), plain(2.99, 1, latency_ms=200), plain(4.0, 1)]
    assert find_mixed(samples, [there, back]) == {}  # type: ignore[arg-type]


def test_failed_requests_say_nothing_about_models() -> None:
    samples = [*make_steady(0, 1), make_sample(1.0, 5, status=503, error="x", header_generation=6)]
    assert find_mixed(samples, []) == {}


def test_of_two_switches_at_once_the_model_before_may_be_the_one_that_stays() -> None:
    other = make_event("two at once", 1.0, end_s=1.4, mark_before="tag-m1", mark_after="tag-m2")
    same = make_event("two at once", 1.01, end_s=1.2, mark_before="tag-m1", mark_after="tag-m2")
    samples = [*make_steady(0, 1.4, 1), *make_steady(1.4, 2, 2), *make_steady(2, 3, 1)]
    plain: dict[str, Any] = {"generation": None, "header_generation": None}
    marks = [make_sample(**(one.model_dump() | plain)) for one in samples]
    assert find_mixed(marks, [same]) != {}
    assert find_mixed(marks, [other, same]) == {}
