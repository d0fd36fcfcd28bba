"""With two kinds of models in service, whatever is done in whatever order: no model that is needed
is deleted, and none is switched to where it does not belong."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.turns import looped, turns
from tests.two_kinds import ACTIONS, MODES, PICKS, Seen, Step, walk
from tests.two_stage import KINDS

STEPS = st.builds(
    Step,
    action=st.sampled_from(ACTIONS),
    kind=st.sampled_from(KINDS),
    pick=st.integers(0, PICKS - 1),
    mode=st.sampled_from(MODES),
)


@looped
@settings(max_examples=turns(5, 25), suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=4, max_size=10))
def test_no_sequence_of_steps_deletes_or_switches_wrongly(steps: list[Step]) -> None:
    seen = Seen()
    with TemporaryDirectory(prefix="pillops-kinds-") as folder:
        walk(Path(folder), steps, seen)
    assert seen.faults == []
