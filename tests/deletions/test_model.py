"""Whatever happens in whatever order: nothing that is needed is deleted, and all can be finished."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.deletions.machine import Deletions


def test_fifty_sequences() -> None:
    run_state_machine_as_test(
        Deletions,
        settings=settings(
            max_examples=50,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
