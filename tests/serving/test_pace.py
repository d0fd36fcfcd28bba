"""Whether what waits is answered together is learned from how long each way took."""

from opslib.serving.pace import KEPT, TRIED_EVERY, Pace


def learn(together_ms: float, alone_ms: float) -> Pace:
    """A pace after `KEPT` runs of each kind, in the order in which it asked for them."""
    pace = Pace()
    for _ in range(2 * KEPT):
        together = pace.together
        pace.note(together_ms if together else alone_ms, together=together)
    return pace


def share_together(pace: Pace, together_ms: float, alone_ms: float, runs: int) -> float:
    """Which share of the next runs holds several requests."""
    chosen = []
    for _ in range(runs):
        chosen.append(pace.together)
        pace.note(together_ms if chosen[-1] else alone_ms, together=chosen[-1])
    return sum(chosen) / runs


def test_what_waits_is_answered_together_until_that_is_known_to_be_slower() -> None:
    pace = Pace()
    for _ in range(KEPT):
        assert pace.together
        pace.note(9.0, together=True)
    for _ in range(KEPT):
        assert not pace.together
        pace.note(5.0, together=False)
    assert share_together(pace, 9.0, 5.0, 10 * TRIED_EVERY) == 1 / TRIED_EVERY


def test_the_faster_way_is_kept_and_the_other_tried_now_and_then() -> None:
    assert share_together(learn(4.0, 5.0), 4.0, 5.0, 10 * TRIED_EVERY) == 1 - 1 / TRIED_EVERY


def test_as_fast_together_is_together() -> None:
    assert share_together(learn(5.0, 5.0), 5.0, 5.0, 10 * TRIED_EVERY) > 0.9


def test_a_way_that_becomes_the_faster_one_is_found() -> None:
    pace = learn(9.0, 5.0)
    share_together(pace, 3.0, 5.0, KEPT * TRIED_EVERY)
    assert share_together(pace, 3.0, 5.0, 10 * TRIED_EVERY) == 1 - 1 / TRIED_EVERY


def test_a_few_runs_that_were_held_up_change_nothing() -> None:
    pace = learn(4.0, 5.0)
    for _ in range(KEPT // 2):
        pace.note(5_000.0, together=True)
    assert share_together(pace, 4.0, 5.0, TRIED_EVERY) > 0.9
